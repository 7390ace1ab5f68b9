"""Prompts as chains of hashes: how far two of them are the same from the very beginning.

A chain has one hash for every whole block of a prompt's bytes; each stands for everything up to
there. Chains are the same in every process that was given the same seed. Pure: no I/O, no clock.
"""

import zlib
from collections.abc import Callable, Iterable

STEPS = ((4 << 10, 128), (64 << 10, 1 << 10), (256 << 10, 16 << 10))
"""Up to how many bytes blocks have which size: fine where prompts part, coarse far behind."""

LONGEST = STEPS[-1][0]
"""Bytes of a prompt that are looked at."""

BOUNDS: tuple[int, ...] = (
    0,
    *(
        end
        for (start, _), (stop, size) in zip(((0, 0), *STEPS), STEPS, strict=False)
        for end in range(start + size, stop + 1, size)
    ),
)
"""How many bytes so many blocks are."""


def chain(seed: int, text: bytes) -> tuple[int, ...]:
    """Return one hash for every whole block of the text; ``seed`` stands for what goes before."""
    hashes: list[int] = []
    start, link, length = 0, seed, len(text)
    for end in BOUNDS[1:]:
        if end > length:
            break
        link = hash((link, zlib.crc32(text[start:end])))
        hashes.append(link)
        start = end
    return tuple(hashes)


def common(hashes: Iterable[int], known: Callable[[int], bool]) -> int:
    """Return how many bytes of the beginning are known, given which hashes are."""
    count = 0
    for link in hashes:
        if not known(link):
            break
        count += 1
    return BOUNDS[count]
