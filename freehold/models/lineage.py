"""What a version was made of, and what that was made of. Pure."""

from collections.abc import Callable, Iterable
from contextlib import suppress

from freehold.errors import Missing
from freehold.store.versions import Dependency

Own = Callable[[str, int], Iterable[Dependency]]
"""Returns what a version depends on; ``Missing`` where it is not here any more."""


def nearest_first(dependencies: Iterable[Dependency], own: Own) -> tuple[str, ...]:
    """Return parents and bases as ``NAME[:NUMBER]``: what is here, and what is only named."""
    found: list[str] = []
    waiting = [dependencies]
    while waiting:
        for dependency in waiting.pop(0):
            if dependency.kind not in ("parent", "base"):
                continue
            number = dependency.target_number
            text = dependency.target + (f":{number}" if number is not None else "")
            if text in found:
                continue
            found.append(text)
            if number is not None:
                with suppress(Missing):
                    waiting.append(own(dependency.target, number))
    return tuple(found)
