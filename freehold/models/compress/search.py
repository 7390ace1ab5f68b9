"""Which type each tensor gets. Pure: measured options in, a choice out.

Every tensor has options of (bytes, loss). On the lower convex hull of each tensor's options every
step up buys less loss for more bytes; taking the steps of all tensors in the order of what a byte
buys gives, after each step, the best mixture of its size (up to the size of one step).
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence

import msgspec


class Option(msgspec.Struct, frozen=True):
    """One way to store a tensor: its type, its bytes, the loss in nats it adds."""

    kind: str
    bytes: int
    loss: float


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Types by tensor name, with the bytes and the loss they add up to."""

    kinds: dict[str, str]
    bytes: int
    loss: float


def hull(options: Iterable[Option]) -> list[Option]:
    """Return the options worth having, cheapest first: more bytes always buy less loss, and each
    byte buys less than the one before."""
    found: list[Option] = []
    for option in sorted(options, key=lambda o: (o.bytes, o.loss)):
        if found and option.loss >= found[-1].loss:
            continue
        while len(found) > 1 and _worth(found[-2], found[-1]) <= _worth(found[-1], option):
            found.pop()
        if found and option.bytes == found[-1].bytes:
            found.pop()
        found.append(option)
    return found


def frontier(tensors: Mapping[str, Sequence[Option]]) -> list[Choice]:
    """Return every mixture on the way from the smallest to the most faithful."""
    hulls = {name: hull(options) for name, options in tensors.items()}
    steps = sorted(
        (
            (-_worth(before, after), name, after)
            for name, chain in hulls.items()
            for before, after in itertools.pairwise(chain)
        ),
        key=lambda step: (step[0], step[1], step[2].bytes),
    )
    now = {name: chain[0] for name, chain in hulls.items()}
    size = sum(option.bytes for option in now.values())
    loss = sum(option.loss for option in now.values())
    found = [_choice(now, size, loss)]
    for _, name, after in steps:
        size += after.bytes - now[name].bytes
        loss += after.loss - now[name].loss
        now[name] = after
        found.append(_choice(now, size, loss))
    return found


def smallest(tensors: Mapping[str, Sequence[Option]], loss: float) -> Choice:
    """Return the smallest mixture within a loss; the most faithful one where none is.

    Where the last whole step was that of a large tensor, others are made smaller with what is left
    of the loss.
    """
    line = frontier(tensors)
    found = next((choice for choice in line if choice.loss <= loss), None)
    if found is None:
        return line[-1]
    size, lost, chosen = found.bytes, found.loss, _chosen(tensors, found)
    while True:
        offers = [
            (_worth(option, chosen[name]), name, option)
            for name, options in tensors.items()
            for option in options
            if option.bytes < chosen[name].bytes and lost + option.loss - chosen[name].loss <= loss
        ]
        if not offers:
            return _choice(chosen, size, lost)
        _, name, option = min(offers, key=lambda offer: offer[:2])
        size += option.bytes - chosen[name].bytes
        lost += option.loss - chosen[name].loss
        chosen[name] = option


def best(tensors: Mapping[str, Sequence[Option]], size: int) -> Choice:
    """Return the most faithful mixture within a size; the smallest one where none is.

    What is left of the size after the last whole step goes to whatever still fits.
    """
    line = frontier(tensors)
    within = [choice for choice in line if choice.bytes <= size]
    if not within:
        return line[0]
    found = within[-1]
    kinds, total, loss = dict(found.kinds), found.bytes, found.loss
    chosen = _chosen(tensors, found)
    fitting = True
    while fitting:
        offers = [
            (_worth(chosen[name], option), name, option)
            for name, options in tensors.items()
            for option in options
            if option.loss < chosen[name].loss
            and option.bytes > chosen[name].bytes
            and total + option.bytes - chosen[name].bytes <= size
        ]
        fitting = bool(offers)
        if offers:
            _, name, option = max(offers, key=lambda offer: offer[:2])
            total += option.bytes - chosen[name].bytes
            loss += option.loss - chosen[name].loss
            chosen[name], kinds[name] = option, option.kind
    return Choice(kinds=kinds, bytes=total, loss=max(0.0, loss))


def _chosen(tensors: Mapping[str, Sequence[Option]], choice: Choice) -> dict[str, Option]:
    return {
        name: next(option for option in options if option.kind == choice.kinds[name])
        for name, options in tensors.items()
    }


def _worth(before: Option, after: Option) -> float:
    """Return the loss that a byte takes away."""
    return (before.loss - after.loss) / max(1, after.bytes - before.bytes)


def _choice(now: Mapping[str, Option], size: int, loss: float) -> Choice:
    kinds = {name: option.kind for name, option in now.items()}
    return Choice(kinds=kinds, bytes=size, loss=max(0.0, loss))
