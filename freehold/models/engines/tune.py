"""Which way of running a model is best here: a search that asks for measurements. Pure.

One knob after another is turned; a turn is kept when it makes the whole faster by more than what
measurements differ by anyway. Every comparison is of two ways measured side by side.
"""

from collections.abc import Generator, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import msgspec

from freehold.runtime.builds import Speed

Knob = Literal["threads", "flash", "batch", "slots", "cache_type", "draft", "context"]
Goal = Literal["balanced", "reading", "writing", "clients"]
GOALS: Mapping[str, tuple[float, float, float]] = MappingProxyType(
    {
        "balanced": (1.0, 1.0, 1.0),
        "reading": (1.0, 0.2, 0.2),
        "writing": (0.2, 1.0, 0.2),
        "clients": (0.2, 0.2, 1.0),
    }
)
"""Goal to the weights of reading, writing, and eight clients."""
WORTH_IT = 1.03
"""How many times as fast a turn must make the whole."""
HARMLESS = 0.97
"""How fast a longer context must still be."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One way of running a model; what is None is left to the engine."""

    threads: int
    slots: int
    context: int
    batch: int | None = None
    cache_type: str | None = None
    flash: bool | None = None
    draft: str | None = None
    drafted: int | None = None


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One turn that was measured: how many times as fast as what was best until then."""

    choice: Choice
    ratio: float | None
    kept: bool


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a search found. ``gain`` is how many times as fast as at the start, as measured."""

    choice: Choice
    gain: float
    trials: tuple[Trial, ...]


Pair = tuple[Speed, Speed] | None
"""Speeds of the turn and of the best until then; None where the turn cannot be run or answers
otherwise."""


def score(pair: tuple[Speed, Speed], goal: Goal) -> float:
    """Return how many times as fast the first is as the second, for a goal."""
    one, other = pair
    weights, product = GOALS[goal], 1.0
    for weight, name in zip(weights, ("reading", "writing", "eight"), strict=True):
        product *= (getattr(one, name) / max(getattr(other, name), 1e-9)) ** weight
    return float(product ** (1 / sum(weights)))


def search(
    start: Choice, turns: Sequence[tuple[str, Sequence[Mapping[str, object]]]], goal: Goal
) -> Generator[tuple[Choice, Choice], Pair, Outcome]:
    """Yield (turn, best until then), be sent their speeds, return what is best.

    ``turns`` are knobs with the changes to try for each. A ``context`` is kept when it is harmless;
    all else when it is worth it.
    """
    best, gain, trials = start, 1.0, []
    for knob, changes in turns:
        base, leader, lead = best, best, 1.0
        for change in changes:
            turned = msgspec.structs.replace(base, **change)
            if turned == base:
                continue
            pair = yield turned, base
            ratio = None if pair is None else round(score(pair, goal), 3)
            needed = HARMLESS if knob == "context" else lead * WORTH_IT
            kept = ratio is not None and ratio >= needed
            trials.append(Trial(choice=turned, ratio=ratio, kept=kept))
            if kept and ratio is not None:
                leader, lead = turned, ratio
            if knob == "context" and kept:
                break  # the longest comes first
        best, gain = leader, gain * lead
    return Outcome(choice=best, gain=round(gain, 3), trials=tuple(trials))


def turns(
    start: Choice,
    cores: int,
    contexts: Sequence[int],
    drafts: Sequence[str],
) -> list[tuple[str, list[dict[str, object]]]]:
    """Return what is worth trying on a machine of so many cores.

    ``contexts`` fit the memory, the longest first; ``drafts`` have the same vocabulary.
    """
    counts = sorted({max(1, cores // 4), max(1, cores // 2), cores, start.threads})
    found: list[tuple[str, list[dict[str, object]]]] = [
        ("threads", [{"threads": count} for count in counts]),
        ("flash", [{"flash": True}, {"flash": False}]),
        ("batch", [{"batch": size} for size in (128, 256, 1024)]),
        ("slots", [{"slots": count} for count in (2, 4, 8, 16) if count != start.slots]),
        ("cache_type", [{"cache_type": "q8_0"}]),
    ]
    if drafts:
        found.append(("draft", [{"draft": name, "drafted": n} for name in drafts for n in (4, 8)]))
    found.append(("context", [{"context": length} for length in contexts]))
    return found
