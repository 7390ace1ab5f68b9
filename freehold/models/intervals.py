"""Means with their 95 % intervals, and proportions with Wilson's. Pure."""

import math
import random
from collections.abc import Sequence

import msgspec


class Interval(msgspec.Struct, frozen=True):
    """A measured mean with its 95 % interval."""

    mean: float
    low: float
    high: float


Z = 1.96
RESAMPLES = 1000


def mean_interval(groups: Sequence[Sequence[float]]) -> Interval:
    """Return the mean over all values, with an interval from drawing whole groups again.

    Values of one text depend on each other; texts do not. The draw is the same every time.
    """
    sums = [(math.fsum(group), len(group)) for group in groups if group]
    if not sums:
        return Interval(0.0, 0.0, 0.0)
    total, count = map(sum, zip(*sums, strict=True))
    mean = total / count
    if len(sums) < 2:
        return Interval(mean, mean, mean)
    draw = random.Random(len(sums))  # noqa: S311  # not a secret: resampling
    means = []
    for _ in range(RESAMPLES):
        drawn = draw.choices(sums, k=len(sums))
        means.append(sum(s for s, _ in drawn) / sum(n for _, n in drawn))
    means.sort()
    return Interval(mean, means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES) - 1])


def wilson(passed: int, total: int) -> Interval:
    """Return a share with Wilson's interval, which holds for few trials and extreme shares."""
    if total == 0:
        return Interval(0.0, 0.0, 1.0)
    share = passed / total
    spread = 1 + Z * Z / total
    centre = (share + Z * Z / (2 * total)) / spread
    half = Z * math.sqrt(share * (1 - share) / total + Z * Z / (4 * total * total)) / spread
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def paired(before: Sequence[bool], after: Sequence[bool]) -> Interval:
    """Return the change of a share, after minus before, on the same cases, with its interval.

    Only cases that changed carry information: Newcombe's square-and-add with their correlation.
    """
    n = len(before)
    if n == 0:
        return Interval(0.0, -1.0, 1.0)
    a, b = wilson(sum(before), n), wilson(sum(after), n)
    both = sum(x and y for x, y in zip(before, after, strict=True))
    neither = sum(not x and not y for x, y in zip(before, after, strict=True))
    lost, won = sum(before) - both, sum(after) - both
    spread = (both + lost) * (won + neither) * (both + won) * (lost + neither)
    phi = (both * neither - lost * won) / math.sqrt(spread) if spread else 0.0
    change = b.mean - a.mean
    dl, du = b.mean - b.low, b.high - b.mean
    el, eu = a.mean - a.low, a.high - a.mean
    low = change - math.sqrt(max(0.0, dl * dl - 2 * phi * dl * eu + eu * eu))
    high = change + math.sqrt(max(0.0, du * du - 2 * phi * du * el + el * el))
    return Interval(change, max(-1.0, low), min(1.0, high))
