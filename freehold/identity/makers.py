"""Whose keys come from whom: who makes a key for another name can act under that name. Pure."""

from collections.abc import Iterable

from freehold.store.credentials import KeyRow

LOCAL = "local"
"""Whoever works in the home itself, under whatever name: the first key lies there."""


def one_made_the_other(one: str, other: str, keys: Iterable[KeyRow]) -> bool:
    """Say whether a key of either of two principals comes from the other, directly or by a chain.

    Dead keys count: what was made with them lives on. Keys of no known maker come from the home,
    and all who work in it count as one.
    """
    made: dict[str, set[str]] = {}
    for key in keys:
        made.setdefault(key.principal, set()).add(_holder(key.created_by or LOCAL))
    one, other = _holder(one), _holder(other)
    return one == other or one in _makers(other, made) or other in _makers(one, made)


def _makers(principal: str, made: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    ahead = [principal]
    while ahead:
        new = made.get(ahead.pop(), set()) - found
        found |= new
        ahead += new
    return found


def _holder(principal: str) -> str:
    return LOCAL if principal.startswith(f"{LOCAL}:") else principal
