"""Marks: a set of 64-bit numbers that all processes of a home share and that forgets.

A mark has one place in a memory-mapped file, by its value; another that falls on it takes it over.
So the set is bounded, needs no lock, and a kill at any moment leaves each of its 8-byte places
whole. Good for what is a pity to forget, not wrong.
"""

import mmap
import os
from pathlib import Path

PLACES = 1 << 18


class Marks:
    """One process's view of the file at ``path``; without a path, marks of this process only."""

    def __init__(self, path: Path | None = None, places: int = PLACES) -> None:
        self._places = places
        if path is None:
            self._map = mmap.mmap(-1, places * 8)
        else:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.ftruncate(descriptor, places * 8)
                if hasattr(os, "posix_fallocate"):  # not on macOS
                    # Every page is there from now on: a full disk must not end the process later.
                    os.posix_fallocate(descriptor, 0, places * 8)
                self._map = mmap.mmap(descriptor, places * 8)
            finally:
                os.close(descriptor)
        self._numbers = memoryview(self._map).cast("q")

    def __contains__(self, mark: int) -> bool:
        return self._numbers[mark % self._places] == mark

    def add(self, mark: int) -> None:
        """Put a mark in; a signed 64-bit number, not 0."""
        self._numbers[mark % self._places] = mark

    def discard(self, mark: int) -> None:
        """Take a mark out, if it is there."""
        if mark in self:
            self._numbers[mark % self._places] = 0

    def close(self) -> None:
        """Let go of the file; its marks stay."""
        self._numbers.release()
        self._map.close()
