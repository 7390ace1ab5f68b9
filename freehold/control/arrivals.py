"""The order in which a document's models are brought in: what others build on first. Pure."""

from collections.abc import Sequence

from freehold.control.deployments import CONVERTED, ModelEntry
from freehold.errors import Invalid


def chains(entries: Sequence[ModelEntry]) -> list[list[ModelEntry]]:
    """Return entries that build on each other together, each after what it needs.

    Versions of one model keep their order, so that their numbers do. ``Invalid`` where entries
    need each other.
    """
    needs = [_needs(at, entries) for at in range(len(entries))]
    chain_of = list(range(len(entries)))
    for at, needed in enumerate(needs):
        for other in needed:
            old, new = chain_of[at], chain_of[other]
            chain_of = [new if each == old else each for each in chain_of]
    found: dict[int, list[ModelEntry]] = {}
    done: set[int] = set()
    for at in range(len(entries)):
        _add(at, needs, done, (), entries, found.setdefault(chain_of[at], []))
    return list(found.values())


def _add(
    at: int,
    needs: Sequence[Sequence[int]],
    done: set[int],
    above: tuple[int, ...],
    entries: Sequence[ModelEntry],
    chain: list[ModelEntry],
) -> None:
    if at in above:
        names = ", ".join(dict.fromkeys(entries[each].name for each in above))
        raise Invalid("invalid.document", f"the models {names} are said to be made of each other")
    if at in done:
        return
    for other in needs[at]:
        _add(other, needs, done, (*above, at), entries, chain)
    done.add(at)
    chain.append(entries[at])


def _needs(at: int, entries: Sequence[ModelEntry]) -> list[int]:
    entry = entries[at]
    bases = {entry.base} if entry.base else set()
    if entry.source.startswith(CONVERTED) and entry.parent is None:
        bases.add(entry.source.removeprefix(CONVERTED).partition(":")[0])
    return [
        number
        for number, other in enumerate(entries)
        if number != at
        and (
            other.sha256 == entry.parent
            or (other.name in bases and other.name != entry.name)
            or (other.name == entry.name and number < at)
        )
    ]
