"""A file that is not yet whole: its bytes in place, and beside it which of them have come."""

import os
import threading
from pathlib import Path

import msgspec

from freehold.models.ranges import Span, add, count, first

EVERY = 8 * 1024 * 1024
"""Bytes after which is written down what has come: at most so many are fetched again."""
MOST_SPANS = 10_000


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    size: int
    state: str | None
    held: tuple[Span, ...]


class Partial:
    """Bytes of a file, in any order, from several threads.

    The record lies there before the first byte that is out of order, and never says more than has
    been written; so a killed process is gone on with. Without a record, what lies there is the
    beginning of the file. ``state`` is what the source calls the version that the bytes are of.
    """

    def __init__(self, path: Path, size: int | None) -> None:
        """Look at what an earlier try left; what makes no sense is removed."""
        self._path = path
        self._size = size or 0
        self._beside = path.with_name(path.name + ".ranges")
        self._fresh = path.with_name(path.name + ".ranges.new")
        self._lock = threading.Lock()
        self._unsaved = 0
        self._file: int | None = None
        self.state: str | None = None
        self.held: tuple[Span, ...] = ()
        if self._beside.exists():
            self._read()
        elif path.exists():
            self.held = add((), (0, path.stat().st_size))
            if size is not None and self.first > size:
                self.forget()

    @property
    def first(self) -> int:
        """Up to where no byte is missing."""
        return first(self.held)

    @property
    def bytes(self) -> int:
        """How many bytes are here."""
        return count(self.held)

    @property
    def is_beginning(self) -> bool:
        """Whether what is here is the beginning of the file, as one connection writes it."""
        return not self._beside.exists()

    @property
    def size(self) -> int:
        """How many bytes there will be."""
        return self._size

    def open(self) -> int:
        """Make it take bytes in any order; return the descriptor, which ``close`` closes."""
        self._save()
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return self._file

    def close(self) -> None:
        """Write down what has come."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
            self._save()

    def agree(self, state: str | None) -> bool:
        """Say whether an answer is of the version that is fetched; the first one decides which."""
        with self._lock:
            if self.state is None:
                self.state = state
            return state is None or state == self.state

    def write(self, start: int, data: memoryview) -> None:
        """Put bytes where they belong."""
        assert self._file is not None
        done = 0
        while done < len(data):
            done += os.pwrite(self._file, data[done:], start + done)
        with self._lock:
            self.held = add(self.held, (start, start + done))
            self._unsaved += done
            if self._unsaved >= EVERY:
                self._save()

    def settle(self) -> None:
        """Take the record away: all is here."""
        self._fresh.unlink(missing_ok=True)
        self._beside.unlink(missing_ok=True)

    def forget(self) -> None:
        """Take all away, the bytes first: without a record they would count as a beginning."""
        self._path.unlink(missing_ok=True)
        self.settle()
        self.held, self.state = (), None

    def _save(self) -> None:
        self._unsaved = 0
        record = _Record(size=self._size, state=self.state, held=self.held)
        self._fresh.write_bytes(msgspec.json.encode(record))
        self._fresh.replace(self._beside)

    def _read(self) -> None:
        try:
            record = msgspec.json.decode(self._beside.read_bytes(), type=_Record)
            there = self._path.stat().st_size
        except (OSError, msgspec.DecodeError):
            self.forget()
            return
        held: tuple[Span, ...] = ()
        for span in record.held[:MOST_SPANS]:
            held = add(held, span)
        sound = held == record.held and (not held or (held[0][0] >= 0 and held[-1][1] <= there))
        if record.size != self._size or not sound or there > record.size:
            self.forget()
            return
        self.held, self.state = held, record.state
