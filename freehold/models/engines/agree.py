"""Do two engines answer the same? Pure: distributions in, a verdict out.

Two correct engines do not give equal numbers: they add up in another order. What must hold is that
they mean the same next token, or two that are as good as tied, and that no probability is far off.
A wrong kernel, a broken quantisation or another model differ by far more.
"""

from collections.abc import Mapping, Sequence

import msgspec

TIE = 0.1
"""Probability by which a first choice may be ahead of the other engine's and still be a tie."""
FURTHEST = 0.15
"""The largest difference of a probability that is still the same answer."""
NEEDED = 0.98
"""Share of places at which first choices must agree or tie."""
FEWEST = 20
"""Places below which there is no verdict."""

Distribution = Mapping[int, float]
"""Token to probability, of the likeliest tokens at one place."""


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """How two engines compare over ``places``; ``why`` says what is wrong, None when nothing is."""

    places: int
    agreed: int
    furthest: float
    why: str | None = None


def compare(ours: Sequence[Distribution], theirs: Sequence[Distribution]) -> Agreement:
    """Hold a build's distributions (``ours``) against the wheel's at the same places."""
    agreed, furthest = 0, 0.0
    for one, other in zip(ours, theirs, strict=True):
        agreed += _tied(one, other)
        furthest = max(furthest, _distance(one, other))
    places = len(ours)
    why = None
    if agreed < places * NEEDED:
        why = f"at {places - agreed} of {places} places it means another next token"
    elif places < FEWEST:
        why = f"only {places} places could be compared, {FEWEST} are needed"
    elif furthest > FURTHEST:
        why = f"a probability is {furthest:.2f} off, {FURTHEST} is allowed"
    return Agreement(places=places, agreed=agreed, furthest=round(furthest, 4), why=why)


def is_lost(found: Agreement, planned: int) -> bool:
    """Say whether no further place of those planned could still make it the same answer."""
    return found.places - found.agreed > planned * (1 - NEEDED)


def _tied(one: Distribution, other: Distribution) -> bool:
    if not one or not other:
        return False
    first, second = max(one, key=one.__getitem__), max(other, key=other.__getitem__)
    ahead = max(
        one[first] - one.get(second, 0.0),
        other[second] - other.get(first, 0.0),
    )
    return first == second or ahead <= TIE


def _distance(one: Distribution, other: Distribution) -> float:
    """Return the largest difference of a probability, over tokens that both list."""
    if not one or not other:
        return 1.0
    common = one.keys() & other.keys()
    listed = [abs(one[token] - other[token]) for token in common]
    # A token that only one of them lists is at most as likely as the other's least likely.
    missing = [one[token] - min(other.values()) for token in one.keys() - common]
    missing += [other[token] - min(one.values()) for token in other.keys() - common]
    return max([0.0, *listed, *missing])
