"""A daemon is believed when it proves that it reads everything, and nothing passes without it."""

import shutil
import socket
import struct
import subprocess
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import pytest

from freehold.errors import Invalid, Unavailable
from freehold.models.scan.clam import TEST_FILE, Clamd, _with_test_file
from freehold.models.scan.scan import scan
from freehold.models.scan.windows import OVERLAP, windows
from freehold.settings import Scan

MARK = b"MARK-OF-EVIL"
WINDOW = 1 << 20
ZEROS = bytes(1 << 18)


def quiet(*_: object) -> None:
    return


class Daemon:
    """Speaks as clamd does; reads as much of each stream as it is told, and says so or not."""

    def __init__(self, folder: Path) -> None:
        self.address = f"unix:{folder / 'clamd'}"
        self.streams: list[int] = []
        self.reads = 1 << 40
        self.answer: Callable[[bytes], bytes] = self.judge
        self.early = False
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(folder / "clamd"))
        self._socket.listen(8)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @staticmethod
    def judge(data: bytes) -> bytes:
        if TEST_FILE in data:
            return b"stream: Eicar-Signature FOUND\0"
        return b"stream: Mark.Of.Evil FOUND\0" if MARK in data else b"stream: OK\0"

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                line = self._socket.accept()[0]
            except OSError:
                return
            with line, line.makefile("rb") as file, suppress(OSError, struct.error):
                self._one(line, file)

    def _one(self, line: socket.socket, file: BinaryIO) -> None:
        assert file.read(10) == b"zINSTREAM\0"
        seen, total = [], 0
        while count := struct.unpack(">I", file.read(4))[0]:
            piece = file.read(count)
            if total < self.reads:
                # Only what could hold a mark is kept: the streams are long.
                seen.append(piece if piece != ZEROS[:count] else b"\0" * 16)
            total += count
            if self.early:
                line.sendall(b"stream: OK\0")
                self.early = False
        self.streams.append(total)
        line.sendall(self.answer(b"".join(seen)))


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path)
    yield made
    made.close()


def _clamd(daemon: Daemon) -> Clamd:
    return Clamd(daemon.address, WINDOW, 10)


@pytest.mark.parametrize("size", [0, 1, 100, 255, 256, 257, 1000, 4096])
def test_windows_cover_every_byte_and_share_enough(size: int) -> None:
    cut = list(windows(size, 256, 64))
    assert cut[0][0] == 0
    assert cut[-1][1] == size
    for before, after in pairwise(cut):
        assert after[0] == before[1] - 64
        assert before[1] - before[0] == 256


def test_the_test_file_lies_at_the_end_of_a_sound_archive() -> None:
    data = b"".join(_with_test_file(WINDOW))
    assert len(data) == WINDOW
    archive = zipfile.ZipFile(BytesIO(data))
    assert archive.testzip() is None
    assert archive.read("eicar.com") == TEST_FILE


def test_a_file_is_read_whole_in_windows(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(bytes(3 * WINDOW + 17))
    reached: list[int] = []
    assert _clamd(daemon).check(file, reached.append) is None
    assert sum(daemon.streams) == 3 * WINDOW + 17 + (len(daemon.streams) - 1) * OVERLAP
    assert reached[-1] == 3 * WINDOW + 17


def test_what_lies_across_an_edge_is_found(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "f"
    data = bytearray(2 * WINDOW)
    data[WINDOW - 5 : WINDOW - 5 + len(MARK)] = MARK
    file.write_bytes(data)
    assert _clamd(daemon).check(file, quiet) == "Mark.Of.Evil"


def test_the_end_of_a_file_over_2_gib_is_read(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "f"
    with file.open("wb") as sparse:
        sparse.truncate(2_254_857_830)  # 2.1 GiB
        sparse.seek(-len(MARK), 2)
        sparse.write(MARK)
    assert Clamd(daemon.address, 1 << 28, 60).check(file, quiet) == "Mark.Of.Evil"
    assert sum(daemon.streams) >= file.stat().st_size


def test_a_daemon_proves_that_it_reads(daemon: Daemon) -> None:
    _clamd(daemon).prove()
    daemon.reads = WINDOW // 2  # it says OK of what it did not read
    with pytest.raises(Unavailable, match="does not find the test file at the end"):
        _clamd(daemon).prove()


def test_a_daemon_without_signatures_is_of_no_use(daemon: Daemon) -> None:
    daemon.answer = lambda _: b"stream: OK\0"
    with pytest.raises(Unavailable, match="it has no signatures"):
        _clamd(daemon).prove()


@pytest.mark.parametrize(
    "answer",
    [b"INSTREAM size limit exceeded. ERROR\0", b"", b"stream: OK but\0", b"x" * 5000, b"UNKNOWN\0"],
)
def test_another_answer_is_no_ok(daemon: Daemon, tmp_path: Path, answer: bytes) -> None:
    daemon.answer = lambda _: answer
    file = tmp_path / "f"
    file.write_bytes(b"x")
    with pytest.raises(Unavailable, match="nothing is taken in unscanned"):
        _clamd(daemon).check(file, quiet)


def test_an_answer_before_the_end_is_not_believed(daemon: Daemon, tmp_path: Path) -> None:
    daemon.early = True
    file = tmp_path / "f"
    file.write_bytes(bytes(WINDOW))
    with pytest.raises(Unavailable, match="before it had all bytes"):
        _clamd(daemon).check(file, quiet)


def test_nobody_there_lets_nothing_in(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_bytes(b"x")
    settings = Scan(clamd=f"unix:{tmp_path / 'nobody'}")
    with pytest.raises(Unavailable, match="does not answer"):
        scan({"README.md": file}, settings, quiet)
    with pytest.raises(Invalid, match=r"unix:PATH or tcp:HOST:PORT"):
        scan({"README.md": file}, Scan(clamd="localhost"), quiet)


def test_a_scan_asks_about_every_file(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(b"sound")
    (tmp_path / "LICENSE").write_bytes(b"so " + MARK)
    files = {name: tmp_path / name for name in ("README.md", "LICENSE")}
    found = scan(files, Scan(clamd=daemon.address, clamd_window=WINDOW), quiet)
    assert [(each.file, each.rule, each.by) for each in found] == [
        ("LICENSE", "clamav.match", "clamav")
    ]


CLAMD = shutil.which("clamd", path="/usr/sbin:/usr/bin:/usr/local/sbin")


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Start the real daemon with two signatures of our own, and limits."""
    if CLAMD is None:
        pytest.skip("NO CLAMAV: apt-get install clamav-daemon")
    running: list[subprocess.Popen[bytes]] = []

    def start(limit: str = "100M", *, signatures: bool = True) -> str:
        (tmp_path / "db").mkdir()
        eicar = TEST_FILE.hex() if signatures else b"nothing of this kind".hex()
        text = f"Eicar-Signature:0:0:{eicar}\nMark.Of.Evil:0:*:{MARK.hex()}\n"
        (tmp_path / "db" / "own.ndb").write_text(text)
        config = tmp_path / "clamd.conf"
        config.write_text(
            f"DatabaseDirectory {tmp_path / 'db'}\nLocalSocket {tmp_path / 's'}\nForeground yes\n"
            f"StreamMaxLength 100M\nMaxFileSize {limit}\nMaxScanSize {limit}\nUser root\n"
        )
        assert CLAMD is not None
        running.append(
            subprocess.Popen(
                [CLAMD, "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        )
        deadline = time.monotonic() + 30
        while not (tmp_path / "s").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return f"unix:{tmp_path / 's'}"

    yield start
    for each in running:
        each.terminate()
        each.wait(20)


def test_the_real_daemon_proves_itself_and_finds(real: Callable[..., str], tmp_path: Path) -> None:
    daemon = Clamd(real(), WINDOW, 30)
    daemon.prove()
    file = tmp_path / "f"
    file.write_bytes(bytes(3 * WINDOW) + MARK)
    found = daemon.check(file, quiet)
    assert found is not None
    assert "Mark.Of.Evil" in found
    file.write_bytes(bytes(WINDOW))
    assert daemon.check(file, quiet) is None


def test_the_real_daemon_over_its_limits_is_not_believed(
    real: Callable[..., str], tmp_path: Path
) -> None:
    address = real("1M")
    file = tmp_path / "f"
    file.write_bytes(bytes(3 * WINDOW) + MARK)
    large = Clamd(address, 8 << 20, 30)
    assert large.check(file, quiet) is None  # it says OK of what it did not read
    with pytest.raises(Unavailable, match="MaxFileSize"):
        large.prove()


def test_the_real_daemon_without_signatures_is_not_believed(real: Callable[..., str]) -> None:
    with pytest.raises(Unavailable, match="no signatures"):
        Clamd(real(signatures=False), WINDOW, 30).prove()
