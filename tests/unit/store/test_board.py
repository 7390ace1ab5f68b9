"""Numbers shared by processes: exact under contention, whole under kills."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from freehold.errors import Broken, Unavailable
from freehold.store.board import Board

TURNS = 3000


def test_a_row_is_the_sum_of_its_cells(tmp_path: Path) -> None:
    one, other = Board(tmp_path / "b", 0, 2), Board(tmp_path / "b", 1, 2)
    row = one.row("inflight:a")
    assert other.row("inflight:a") == row
    assert other.row("inflight:b") == one.row("inflight:b") != row
    one.add(row, 5)
    other.add(row, -2)
    assert one.total(row) == other.total(row) == 3
    assert (one.cell(row), one.cell(row, 1)) == (5, -2)
    other.wipe()
    assert one.total(row) == 5


def _count_up(path: Path, slot: int) -> None:
    board = Board(path, slot, 4)
    row, limit = board.row("n"), 2 * TURNS
    for _ in range(TURNS):
        with board.lock():
            if board.total(row) < limit:
                board.add(row, 1)


def test_a_limit_holds_to_the_unit_among_processes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_count_up, args=(tmp_path / "b", n)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    board = Board(tmp_path / "b", 0, 4)
    assert board.total(board.row("n")) == 2 * TURNS


def test_a_killed_holder_lets_the_lock_go(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from freehold.store.board import Board\n"
        "b = Board(Path(sys.argv[1]), 1, 2)\n"
        "with b.lock(): print('held', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "b")], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    board = None
    with pytest.raises(Unavailable, match="hangs"):
        board = Board(tmp_path / "b", 0, 2)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    begun = time.monotonic()
    board = Board(tmp_path / "b", 0, 2)
    with board.lock():
        assert time.monotonic() - begun < 1


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"x" * 100)
    with pytest.raises(Broken, match="delete it"):
        Board(tmp_path / "b", 0, 2)
    Board(tmp_path / "c", 0, 2).close()
    with (tmp_path / "c").open("r+b") as file:
        file.write(b"\xff" * 8)
    with pytest.raises(Broken, match="damaged"):
        Board(tmp_path / "c", 0, 2)


def test_a_full_board_says_so(tmp_path: Path) -> None:
    board = Board(tmp_path / "b", 0, 1, rows=2)
    board.row("a")
    board.row("b")
    with pytest.raises(Unavailable, match="stop and start"):
        board.row("c")
    assert board.row("a") == 0


def test_a_board_killed_while_it_was_made_is_new(tmp_path: Path) -> None:
    Board(tmp_path / "b", 0, 2, rows=8).close()
    size = (tmp_path / "b").stat().st_size
    (tmp_path / "b").write_bytes(bytes(size))
    board = Board(tmp_path / "b", 1, 2, rows=8)
    board.add(board.row("x"), 3)
    assert board.total(board.row("x")) == 3
    board.close()


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="NOT TESTED HERE: no fallocate")
def test_rows_have_their_place_on_the_disk_before_anybody_writes_there(tmp_path: Path) -> None:
    board = Board(tmp_path / "board", 0, 64)
    for number in range(500):
        board.row(str(number))
    assert (tmp_path / "board").stat().st_blocks * 512 >= 500 * 64 * 8
    board.close()
