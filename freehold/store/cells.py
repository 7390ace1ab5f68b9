"""Named numbers a process keeps in a file of its own, so that others can read and add them up.

Each writer holds one file of the directory, the first that no living process holds; when it is
killed its successor takes that file and counts on from where it stood. A number is one aligned
8-byte store and a name is counted only once it is whole, so a kill at any moment leaves every
number true. Nothing is locked while counting: nobody else writes here.
"""

import fcntl
import mmap
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

import msgspec

HEAD = 4096
ROWS = 1 << 16
NAMES = 1 << 20
"""Bytes for names."""
SIZE = HEAD + ROWS * 8 + NAMES
_STAMP, _NAMED, _BORN = 0, 1, 2

Words: TypeAlias = "memoryview[int]"
Numbers: TypeAlias = "memoryview[float]"
Bytes: TypeAlias = "memoryview[int]"


class Reading(msgspec.Struct, frozen=True):
    """One file as it stands: numbers by name, counted since ``born`` (epoch seconds).

    ``held`` says that a living process writes it.
    """

    held: bool
    born: float
    numbers: dict[bytes, list[float]]


class Cells:
    """The file that this process writes. ``stamp`` names the meaning of names and numbers."""

    def __init__(self, directory: Path, stamp: int) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._descriptor = _take(directory, stamp)
        except OSError:
            # A disk that is full or cannot be written costs the numbers, not the process.
            self._descriptor = -1
        self._map = mmap.mmap(self._descriptor, SIZE)
        view = memoryview(self._map)
        self._head = view[:HEAD].cast("q")
        self._head[_STAMP] = stamp
        self._head[_BORN] = self._head[_BORN] or time.time_ns()
        self.numbers = view[HEAD : HEAD + ROWS * 8].cast("d")
        self._names = view[HEAD + ROWS * 8 :]
        self._known = _places(self._head, self._names)
        self._used = sum(count for _, count in self._known.values())

    @property
    def shared(self) -> bool:
        """Say whether others can read these numbers."""
        return self._descriptor >= 0

    def place(self, name: bytes, count: int) -> int | None:
        """Return where the ``count`` numbers of a name begin, made on first use; None when full.

        A name holds no line feed. New numbers are 0.
        """
        found = self._known.get(name)
        if found is not None:
            return found[0]
        line = b"%d %b\n" % (count, name)
        at, named = self._used, self._head[_NAMED]
        if at + count > ROWS or named + len(line) > NAMES:
            return None
        self._names[named : named + len(line)] = line
        self._head[_NAMED] = named + len(line)
        self._known[name] = (at, count)
        self._used += count
        return at

    def known(self) -> dict[bytes, tuple[int, int]]:
        """Return every name with where its numbers begin and how many they are."""
        return dict(self._known)

    def close(self) -> None:
        """Let go of the file; its numbers stay."""
        for view in (self._head, self.numbers, self._names):
            view.release()
        self._map.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)


def read(directory: Path, stamp: int) -> list[Reading]:
    """Read the files of all writers, those of dead ones too, whose meaning is ``stamp``."""
    found = []
    for path in sorted(directory.glob("*.cells")):
        with suppress(FileNotFoundError), path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == SIZE:
                reading = _read(file.fileno(), stamp)
                found += [reading] if reading is not None else []
    return found


def clear(directory: Path) -> None:
    """Remove every file that no living process writes."""
    for path in directory.glob("*.cells"):
        with suppress(FileNotFoundError), path.open("rb") as file:
            if _lock(file.fileno(), fcntl.LOCK_EX):
                path.unlink()


def _read(descriptor: int, stamp: int) -> Reading | None:
    with mmap.mmap(descriptor, SIZE, access=mmap.ACCESS_READ) as mapped, _views(mapped) as views:
        head, numbers, names = views
        if head[_STAMP] != stamp:
            return None
        born = head[_BORN] / 1e9
        places = _places(head, names)
        values: dict[bytes, list[float]] = {
            name: list(numbers[at : at + n]) for name, (at, n) in places.items()
        }
    held = not _lock(descriptor, fcntl.LOCK_SH)
    return Reading(held, born, values)


@contextmanager
def _views(mapped: mmap.mmap) -> Iterator[tuple[Words, Numbers, Bytes]]:
    view = memoryview(mapped)
    parts = (
        view[:HEAD].cast("q"),
        view[HEAD : HEAD + ROWS * 8].cast("d"),
        view[HEAD + ROWS * 8 :],
    )
    try:
        yield parts
    finally:
        for part in (*parts, view):
            part.release()


def _places(head: Words, names: Bytes) -> dict[bytes, tuple[int, int]]:
    """Read the names; each stands for the next so many numbers."""
    places: dict[bytes, tuple[int, int]] = {}
    at = 0
    for line in bytes(names[: head[_NAMED]]).split(b"\n")[:-1]:
        count, _, name = line.partition(b" ")
        places[name] = (at, int(count))
        at += int(count)
    return places


def _take(directory: Path, stamp: int) -> int:
    """Return a descriptor of the first file that is free, held for the life of this process."""
    number = 0
    while True:
        path = directory / f"{number}.cells"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not _lock(descriptor, fcntl.LOCK_EX):
                number += 1
            elif not _same(descriptor, path):
                pass  # removed between opening and locking: open what is there now
            elif not _usable(descriptor, stamp):
                path.unlink()
            else:
                return os.dup(descriptor)
        finally:
            os.close(descriptor)


def _usable(descriptor: int, stamp: int) -> bool:
    """Say whether the file is new or means what ours shall mean; a new one gets its size.

    Its bytes are written and not only promised: to touch a promise on a full disk is fatal.
    """
    if os.fstat(descriptor).st_size == 0:
        rest = memoryview(bytes(SIZE))
        try:
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        except OSError:
            os.ftruncate(descriptor, 0)
            raise
        return True
    found = int.from_bytes(os.pread(descriptor, 8, 0), sys.byteorder)
    return os.fstat(descriptor).st_size == SIZE and found in (0, stamp)


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _same(descriptor: int, path: Path) -> bool:
    try:
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False
