"""Ask a ClamAV daemon about every byte of a file, and believe it only when it proves that it looks.

Its ``INSTREAM`` takes streams up to a limit of its own, calls what is over other limits of its own
OK without reading it, and calls everything OK when it has no signatures. So a file is sent in
windows that overlap, and before that a window whose last bytes are the standard test file: a
daemon that does not find it would not find anything else there either.
"""

import os
import select
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from freehold.errors import Invalid, Unavailable
from freehold.models.scan.windows import OVERLAP, windows

CHUNK = 256 * 1024
# In two pieces: whole, virus scanners would take this file away.
TEST_FILE = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"


class Clamd:
    """A daemon at ``unix:PATH`` or ``tcp:HOST:PORT``; ``window`` in bytes, ``timeout`` in seconds.

    All methods raise ``Unavailable`` when it does not answer, or not as it should.
    """

    def __init__(self, address: str, window: int, timeout: float) -> None:
        self._address = address
        self._window = max(window, OVERLAP * 4)
        self._timeout = timeout

    def prove(self) -> None:
        """Find the test file at the end of a window, or be of no use."""
        if self._send(_with_test_file(self._window)) is None:
            raise Unavailable(
                "unavailable.clamd",
                f"clamd at {self._address} does not find the test file at the end of "
                f"{self._window} bytes: it has no signatures, or StreamMaxLength, MaxFileSize and "
                "MaxScanSize are below twice scan.clamd_window",
            )

    def check(self, path: Path, progress: Callable[[int], None]) -> str | None:
        """Return the name of what it found in a file, None when it read all and found nothing."""
        size = path.stat().st_size
        with path.open("rb", buffering=0) as file:
            for begin, end in windows(size, self._window):
                found = self._send(_pieces(file.fileno(), begin, end))
                if found is not None:
                    return found
                progress(end)
        return None

    def _send(self, pieces: Iterator[bytes]) -> str | None:
        try:
            with self._connect() as line:
                line.sendall(b"zINSTREAM\0")
                for piece in pieces:
                    line.sendall(struct.pack(">I", len(piece)))
                    line.sendall(piece)
                if select.select([line], [], [], 0)[0]:
                    raise self._strange(line.recv(4096), "before it had all bytes")
                line.sendall(bytes(4))
                return self._read(line)
        except (OSError, TimeoutError) as error:
            raise Unavailable(
                "unavailable.clamd",
                f"clamd at {self._address} does not answer ({error.strerror or error}): nothing is "
                "taken in unscanned; start it, or take scan.clamd out of freehold.toml",
            ) from error

    def _read(self, line: socket.socket) -> str | None:
        answer = b""
        while not answer.endswith(b"\0") and len(answer) < 4096:
            piece = line.recv(4096)
            if not piece:
                break
            answer += piece
        text = answer.rstrip(b"\0\n").decode("utf-8", "replace")
        if text == "stream: OK":
            return None
        if text.startswith("stream: ") and text.endswith(" FOUND"):
            return text.removeprefix("stream: ").removesuffix(" FOUND")[:200]
        raise self._strange(answer, "")

    def _strange(self, answer: bytes, when: str) -> Unavailable:
        text = answer.rstrip(b"\0\n").decode("utf-8", "replace")
        return Unavailable(
            "unavailable.clamd",
            f"clamd at {self._address} answers {text!r:.120} {when}".rstrip()
            + ": nothing is taken in unscanned; StreamMaxLength must be over scan.clamd_window",
        )

    def _connect(self) -> socket.socket:
        kind, _, place = self._address.partition(":")
        if kind == "unix":
            line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            line.settimeout(self._timeout)
            try:
                line.connect(place)
            except OSError:
                line.close()
                raise
            return line
        host, _, port = place.rpartition(":")
        if kind != "tcp" or not host or not port.isdigit():
            raise Invalid(
                "invalid.settings", "scan.clamd is unix:PATH or tcp:HOST:PORT", param="scan.clamd"
            )
        return socket.create_connection((host.strip("[]"), int(port)), self._timeout)


def _pieces(descriptor: int, begin: int, end: int) -> Iterator[bytes]:
    """Yield the bytes between two places; ``OSError`` when the file became shorter."""
    at = begin
    while at < end:
        piece = os.pread(descriptor, min(CHUNK, end - at), at)
        if not piece:
            raise OSError(0, "the file shrank while it was scanned")
        at += len(piece)
        yield piece


def _with_test_file(size: int) -> Iterator[bytes]:
    """Yield a zip archive of so many bytes that holds padding and, last, the test file.

    In an archive, because signatures want the test file at the beginning of a file.
    """
    names = (b"padding", b"eicar.com")
    around = sum(30 + 46 + 2 * len(name) for name in names) + 22 + len(TEST_FILE)
    padding = size - around
    crc = 0
    for at in range(0, padding, CHUNK):
        crc = zlib.crc32(bytes(min(CHUNK, padding - at)), crc)
    directory, offset = b"", 0
    for name, checksum, length in (
        (names[0], crc, padding),
        (names[1], zlib.crc32(TEST_FILE), len(TEST_FILE)),
    ):
        common = struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 33, checksum, length, length, len(name), 0)
        yield b"PK\x03\x04" + common + name
        for at in range(0, length, CHUNK):
            count = min(CHUNK, length - at)
            yield bytes(count) if name == names[0] else TEST_FILE
        directory += b"PK\x01\x02" + struct.pack("<H", 20) + common
        directory += struct.pack("<HHHII", 0, 0, 0, 0, offset) + name
        offset += 30 + len(name) + length
    yield directory
    yield b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 2, 2, len(directory), offset, 0)
