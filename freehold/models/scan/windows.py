"""Cut a file into windows that overlap, so that every byte is in one and no sign is cut. Pure."""

from collections.abc import Iterator

OVERLAP = 64 * 1024


def windows(size: int, width: int, overlap: int = OVERLAP) -> Iterator[tuple[int, int]]:
    """Yield (begin, end) of windows at most ``width`` bytes wide that cover ``size`` bytes.

    Each begins ``overlap`` bytes before the end of the one before: what is no longer than that lies
    whole in one of them.
    """
    if not 0 <= overlap < width:
        raise ValueError("a window must be wider than what it shares")
    begin = 0
    while True:
        end = min(size, begin + width)
        yield begin, end
        if end >= size:
            return
        begin = end - overlap
