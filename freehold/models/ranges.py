"""Which bytes of a large file are asked for in which range, and which have come. Pure.

A span is ``(start, end)`` in bytes, without ``end``.
"""

import re
from collections.abc import Iterable, Sequence

Span = tuple[int, int]
CONNECTIONS = 4
"""Stores limit each connection, not each client; beyond a few they answer that we are too many."""
RANGE = 32 * 1024 * 1024
"""Long enough that asking costs nothing beside it, short enough that four come in about in order:
the file is hashed from its beginning while they come."""
LEAST = 2 * RANGE
"""Smaller files come by one connection: they are here before further ones were at their speed."""
_TOLD = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII)


def is_worth(size: int | None) -> bool:
    """Say whether a file of so many bytes is fetched by several connections."""
    return size is not None and size >= LEAST


def add(held: Iterable[Span], span: Span) -> tuple[Span, ...]:
    """Return what is held after ``span`` has come: sorted, and what touches joined."""
    joined: list[Span] = []
    for start, end in sorted((*held, span)):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        elif start < end:
            joined.append((start, end))
    return tuple(joined)


def first(held: Sequence[Span]) -> int:
    """Return up to where nothing is missing."""
    return held[0][1] if held and held[0][0] == 0 else 0


def count(held: Iterable[Span]) -> int:
    """Return how many bytes are held."""
    return sum(end - start for start, end in held)


def missing(held: Iterable[Span], size: int) -> list[Span]:
    """Return the ranges to ask for, first bytes first, none longer than ``RANGE``."""
    found: list[Span] = []
    at = 0
    for start, end in (*held, (size, size)):
        found += [(begin, min(start, begin + RANGE)) for begin in range(at, start, RANGE)]
        at = end
    return found


def is_answer(told: str | None, span: Span, size: int) -> bool:
    """Say whether a ``Content-Range`` is that of the range that was asked for."""
    read = _TOLD.fullmatch(told or "")
    if read is None:
        return False
    start, last, whole = read.groups()
    return (int(start), int(last) + 1) == span and whole in ("*", str(size))
