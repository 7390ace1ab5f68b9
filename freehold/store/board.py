"""The board: whole numbers that all processes of a home share, in one memory-mapped file.

Every row has a name and one cell for each process, its slot. A process writes its own cells only,
one aligned 8-byte store each, so a kill at any moment leaves every number whole; the value of a row
is the sum of its cells. ``lock`` makes reading a sum and then writing one step for all processes,
and falls by itself when its holder is killed.

A row has its place on the disk before anybody writes there: a store into a page that a full disk
has no room for would end the process.

The board is fast and survives every process, not the machine: whoever needs more keeps a durable
record and sets the cells from it after a restart.
"""

import errno
import fcntl
import hashlib
import mmap
import os
import time
from pathlib import Path

from freehold.errors import Broken, Unavailable

ROWS = 1 << 16
NAME = 16
"""Bytes of a row's name: a digest of what it is called."""
HEAD = 4096
MAGIC = 0x46484231
PATIENCE = 1.0
_MAGIC, _SLOTS, _COUNT = 0, 1, 2


class Lock:
    """A lock between processes, on an open file; it falls with its holder."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._wait()

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _wait(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            time.sleep(0.00002)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    text = "another process of this home holds the shared numbers and hangs"
                    raise Unavailable("unavailable.board", text, retry_after=1) from None


class Board:
    """One process's view of the file at ``path``. ``slot`` counts from 0, below ``slots``."""

    def __init__(self, path: Path, slot: int, slots: int, rows: int = ROWS) -> None:
        if not 0 <= slot < slots:
            raise ValueError(f"slot {slot} of {slots}")
        self.slot = slot
        self.slots = slots
        self._rows = rows
        self._known: dict[bytes, int] = {}
        self._names_at = HEAD
        self._cells_at = (HEAD + rows * NAME) // 8
        size = HEAD + rows * NAME + rows * slots * 8
        self._path, self._size = path, size
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._lock = Lock(self._descriptor)
        with self.lock():
            fresh = os.fstat(self._descriptor).st_size == 0
            if fresh:
                os.ftruncate(self._descriptor, size)
                self._allocate(0, HEAD)
            elif os.fstat(self._descriptor).st_size != size:
                raise Broken("broken.board", f"{path} is of another size: stop, delete it, start")
            self._map = mmap.mmap(self._descriptor, size)
            self._numbers = memoryview(self._map).cast("q")
            # Of its size, but not begun: whoever made it was killed at that moment.
            fresh = fresh or self._numbers[_MAGIC] == 0
            if fresh:
                self._numbers[_SLOTS] = slots
                self._numbers[_MAGIC] = MAGIC
            elif (self._numbers[_MAGIC], self._numbers[_SLOTS]) != (MAGIC, slots):
                raise Broken("broken.board", f"{path} is damaged: stop, delete it, start")

    def lock(self) -> "Lock":
        """Hold the board alone. Never held over an await; ``Unavailable`` after a second."""
        return self._lock

    def row(self, name: str) -> int:
        """Return the row of a name, made on first use; do not call it while holding ``lock``."""
        digest = hashlib.blake2b(name.encode(), digest_size=NAME).digest()
        found = self._known.get(digest)
        if found is not None:
            return found
        with self.lock():
            count = self._numbers[_COUNT]
            for number in range(len(self._known), count):
                at = self._names_at + number * NAME
                self._known[self._map[at : at + NAME]] = number
            if digest not in self._known:
                if count == self._rows:
                    text = f"more than {self._rows} shared numbers: stop and start Freehold"
                    raise Unavailable("unavailable.board", text)
                at = self._names_at + count * NAME
                self._allocate(at, NAME)
                self._allocate((self._cells_at + count * self.slots) * 8, self.slots * 8)
                self._map[at : at + NAME] = digest
                self._numbers[_COUNT] = count + 1
                self._known[digest] = count
        return self._known[digest]

    def total(self, row: int) -> int:
        """Return the sum of a row's cells."""
        at = self._cells_at + row * self.slots
        return sum(self._numbers[at : at + self.slots])

    def cell(self, row: int, slot: int | None = None) -> int:
        """Return one cell of a row, by default this process's own."""
        return self._numbers[self._cells_at + row * self.slots + self._of(slot)]

    def view(self, row: int) -> memoryview:
        """Return a row's cells as they stand; let go of it before ``close``."""
        at = self._cells_at + row * self.slots
        return self._numbers[at : at + self.slots]

    def add(self, row: int, amount: int) -> None:
        """Add to this process's own cell."""
        self._numbers[self._cells_at + row * self.slots + self.slot] += amount

    def put(self, row: int, value: int, slot: int | None = None) -> None:
        """Set a cell; another slot's only while holding ``lock``, when its process is dead."""
        self._numbers[self._cells_at + row * self.slots + self._of(slot)] = value

    def wipe(self, slot: int | None = None) -> None:
        """Set every cell of a slot to zero: what a process did that is no more."""
        first = self._cells_at + self._of(slot)
        for row in range(self._numbers[_COUNT]):
            self._numbers[first + row * self.slots] = 0

    def is_whole(self) -> bool:
        """Say whether the file is where it was, of the size it had, with its head intact."""
        try:
            there = self._path.stat()
        except OSError:
            return False
        mine = os.fstat(self._descriptor)
        if (there.st_ino, there.st_dev, mine.st_size) != (mine.st_ino, mine.st_dev, self._size):
            return False
        return (self._numbers[_MAGIC], self._numbers[_SLOTS]) == (MAGIC, self.slots)

    def close(self) -> None:
        """Let go of the file; its numbers stay."""
        self._numbers.release()
        self._map.close()
        os.close(self._descriptor)

    def _of(self, slot: int | None) -> int:
        return self.slot if slot is None else slot

    def _allocate(self, at: int, length: int) -> None:
        if not hasattr(os, "posix_fallocate"):  # not on macOS
            return
        try:
            os.posix_fallocate(self._descriptor, at, length)
        except OSError as error:
            if error.errno != errno.ENOSPC:  # a file system that cannot
                return
            text = f"the disk is full: {self._path.name} has no room for one more number"
            raise Unavailable("unavailable.board", text, retry_after=5) from error
