"""Numbers in files: counted on after a kill, never mixed up, never lost."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from freehold.store import cells
from freehold.store.cells import Cells, clear, read

STAMP = 7


def test_a_name_has_its_numbers_and_keeps_them(tmp_path: Path) -> None:
    ours = Cells(tmp_path, STAMP)
    one, other = ours.place(b"a", 3), ours.place(b"b", 1)
    assert (one, other) == (0, 3)
    assert ours.shared
    ours.numbers[1] = 2.5
    assert ours.place(b"a", 3) == 0
    (reading,) = read(tmp_path, STAMP)
    assert reading.held
    assert abs(reading.born - time.time()) < 60
    assert reading.numbers == {b"a": [0, 2.5, 0], b"b": [0]}
    ours.close()
    (reading,) = read(tmp_path, STAMP)
    assert not reading.held
    again = Cells(tmp_path, STAMP)
    assert again.known() == {b"a": (0, 3), b"b": (3, 1)}
    assert again.place(b"c", 1) == 4
    again.close()


def test_every_writer_has_a_file_of_its_own(tmp_path: Path) -> None:
    one, other = Cells(tmp_path, STAMP), Cells(tmp_path, STAMP)
    for ours, value in ((one, 1.0), (other, 2.0)):
        ours.numbers[ours.place(b"a", 1) or 0] = value
    assert [reading.numbers[b"a"] for reading in read(tmp_path, STAMP)] == [[1.0], [2.0]]
    one.close()
    third = Cells(tmp_path, STAMP)
    assert third.numbers[0] == 1.0  # it took over what nobody holds
    third.close()
    other.close()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_killed_writers_numbers_are_whole_and_go_on(tmp_path: Path) -> None:
    program = (
        "import sys, itertools; from pathlib import Path; from freehold.store.cells import Cells\n"
        f"ours = Cells(Path(sys.argv[1]), {STAMP})\n"
        "for n in itertools.count():\n"
        "    at = ours.place(b'name-%d' % (n % 5000), 2)\n"
        "    ours.numbers[at] += 1; ours.numbers[at + 1] += 1\n"
        "    if n == 1000: print('up', flush=True)"
    )
    seen = 0.0
    for _ in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        (reading,) = read(tmp_path, STAMP)
        total = sum(a for a, _ in reading.numbers.values())
        assert all(b <= a <= b + 1 for a, b in reading.numbers.values())
        assert total >= seen + 1000
        seen = total


def test_numbers_of_another_meaning_are_not_read(tmp_path: Path) -> None:
    old = Cells(tmp_path, STAMP)
    old.place(b"a", 1)
    assert read(tmp_path, STAMP + 1) == []
    old.close()
    new = Cells(tmp_path, STAMP + 1)
    assert new.known() == {}
    new.close()
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("damage", [b"", b"short", b"x" * cells.SIZE])
def test_a_damaged_file_is_replaced(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "0.cells").write_bytes(damage)
    assert read(tmp_path, STAMP) == []
    ours = Cells(tmp_path, STAMP)
    assert ours.place(b"a", 1) == 0
    assert len(read(tmp_path, STAMP)) == 1
    ours.close()


def test_a_full_file_takes_no_more_names(tmp_path: Path) -> None:
    ours = Cells(tmp_path, STAMP)
    assert ours.place(b"big", cells.ROWS - 1) == 0
    assert ours.place(b"two", 2) is None
    assert ours.place(b"one", 1) == cells.ROWS - 1
    assert ours.place(b"big", cells.ROWS - 1) == 0
    ours.close()


def test_a_name_that_does_not_fit_has_no_numbers(tmp_path: Path) -> None:
    ours = Cells(tmp_path, STAMP)
    assert ours.place(b"x" * cells.NAMES, 1) is None
    assert ours.place(b"y", 1) == 0
    ours.close()


def test_where_nothing_can_be_written_it_counts_for_itself(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ours = Cells(tmp_path / "file" / "metrics", STAMP)
    at = ours.place(b"a", 1)
    assert at == 0
    ours.numbers[at] += 1
    assert read(tmp_path / "file" / "metrics", STAMP) == []
    assert not ours.shared
    ours.close()


def test_clearing_leaves_the_files_of_the_living(tmp_path: Path) -> None:
    dead, living = Cells(tmp_path, STAMP), Cells(tmp_path, STAMP)
    dead.close()
    clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["1.cells"]
    living.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT ROOT: a small disk cannot be mounted")
def test_a_full_disk_costs_the_numbers_and_not_the_process(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(small)]
    if subprocess.run(mounted, check=False, capture_output=True).returncode:
        pytest.skip("NO MOUNT: a small disk cannot be mounted here")
    program = (
        "import sys; from pathlib import Path; from freehold.store.cells import Cells, ROWS\n"
        f"ours = Cells(Path(sys.argv[1]), {STAMP})\n"
        "for n in range(ROWS): ours.numbers[ours.place(b'%d' % n, 1)] += 1\n"
        "print(ours.shared)"
    )
    try:
        ran = subprocess.run(
            [sys.executable, "-c", program, str(small)], capture_output=True, text=True, check=False
        )
        assert (ran.returncode, ran.stdout) == (0, "False\n"), ran.stderr
        assert [path.stat().st_size for path in small.iterdir()] == [0]
    finally:
        subprocess.run(["umount", str(small)], check=True)
