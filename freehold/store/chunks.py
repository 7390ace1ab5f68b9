"""Where a file is cut into chunks: by what is in it, so that equal bytes are cut alike elsewhere.

A chunk ends behind a mark, two fixed bytes and a third below 32, that turns up about once in a
mebibyte of weights; what is inserted or taken out moves the next few cuts, no others. Files that
know their parts (tensors) are cut at those too. Finding a mark is a search for a substring, which
the interpreter does at some gigabytes a second: a rolling hash would need a compiled extension.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Protocol

import msgspec

MARK = b"\x5a\xc3"
BELOW = 32
SHORTEST = 256 * 1024
LONGEST = 4 * 1024 * 1024
PART = 64 * 1024
"""Bytes from which a part of a file is worth cuts of its own."""


class Reader(Protocol):
    """What bytes are read from."""

    def read(self, count: int, /) -> bytes:
        """Return up to so many bytes, none at the end."""
        ...


class Chunk(msgspec.Struct, frozen=True, array_like=True):
    """A run of bytes by its SHA-256 (hex)."""

    digest: str
    bytes: int


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file as its chunks, in order."""

    chunks: tuple[Chunk, ...]

    @property
    def bytes(self) -> int:
        """The size of the whole file."""
        return sum(chunk.bytes for chunk in self.chunks)


def cuts(starts: Iterable[int], size: int) -> list[int]:
    """Return where a file of ``size`` bytes must be cut: at the starts of its larger parts.

    Small neighbours stay together: each tensor of norms alone would make a thousand tiny files.
    """
    ordered = sorted({0, *(start for start in starts if 0 < start < size)})
    found: set[int] = set()
    for start, end in pairwise([*ordered, size]):
        if end - start >= PART:
            found |= {start, end}
    return sorted(found - {0, size})


def pieces(file: Reader, at: Sequence[int] = ()) -> Iterator[bytes]:
    """Yield a file's bytes chunk by chunk; ``at`` are positions at which a cut must be.

    Holds ``LONGEST`` bytes at most, twice.
    """
    waiting = bytearray()
    limits = iter(at)
    limit, position = next(limits, None), 0
    while True:
        if len(waiting) < LONGEST and (more := file.read(LONGEST - len(waiting))):
            waiting += more
            continue
        if not waiting:
            return
        end = len(waiting) if limit is None else min(len(waiting), limit - position)
        end = _first_cut(waiting, end)
        yield bytes(memoryview(waiting)[:end])
        del waiting[:end]
        position += end
        if limit is not None and position >= limit:
            limit = next(limits, None)


def recipe_of(file: Reader, at: Sequence[int] = ()) -> tuple[Recipe, str]:
    """Return a file as chunks, and its own SHA-256."""
    whole, found = hashlib.sha256(), []
    for piece in pieces(file, at):
        whole.update(piece)
        found.append(Chunk(hashlib.sha256(piece).hexdigest(), len(piece)))
    return Recipe(tuple(found)), whole.hexdigest()


def shared(recipes: Mapping[str, Recipe]) -> dict[str, int]:
    """Return how many bytes of each file are also in another one, or twice in itself. Pure."""
    seen: dict[str, int] = {}
    for recipe in recipes.values():
        for chunk in recipe.chunks:
            seen[chunk.digest] = seen.get(chunk.digest, 0) + 1
    return {
        name: sum(chunk.bytes for chunk in recipe.chunks if seen[chunk.digest] > 1)
        for name, recipe in recipes.items()
    }


def _first_cut(data: bytearray, end: int) -> int:
    at = SHORTEST
    while 0 <= (at := data.find(MARK, at, end)) < end - len(MARK):
        at += len(MARK)
        if data[at] < BELOW:
            return at + 1
    return end
