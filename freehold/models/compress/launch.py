"""How a compressed version is launched: its key-value cache, its draft, its context.

Each is tried beside what it would replace, with the weights that were made and on this machine;
what is found becomes the version's launch settings. ``ask`` runs an exam, in a child.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from freehold.errors import EngineLost
from freehold.models.answering import Exam, Marks
from freehold.models.compress.order import Measured
from freehold.models.compress.report import Speed
from freehold.models.manifest import Manifest, memory_needed
from freehold.models.registry import LaunchSettings

SLIGHT = 0.2
"""Share of the limit that a coarser key-value cache may cost."""
HARMLESS = 0.85
"""How fast reading and writing with it must still be: it is there to save memory."""
WORTH = 1.1
"""How much faster writing with a draft must be measured."""

Ask = Callable[[Exam], Marks]


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What engines have here: bytes of memory for all of them, and a replica's defaults."""

    room: int
    context: int
    slots: int


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A small model with the same vocabulary that may guess ahead."""

    path: Path
    manifest: Manifest
    bytes: int


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """Launch settings, how the version runs with them, and a line on each thing that was tried."""

    settings: LaunchSettings = LaunchSettings()
    speed: Speed | None = None
    tried: tuple[str, ...] = ()


def caches(measured: Measured, limit: float) -> list[str]:
    """Return the types of cache that cost next to nothing beside the limit, the coarsest first."""
    return [
        kind.lower()
        for kind in ("Q4_0", "Q8_0")
        if kind in measured.caches
        and measured.loss.high + max(0.0, measured.caches[kind].high) <= limit
        and measured.caches[kind].high <= SLIGHT * limit
    ]


def contexts(need: Callable[[int], int], trained: int | None, place: Place) -> list[int]:
    """Return contexts over the default that fit the memory twice, the longest first.

    Twice, so that the next version can come up beside this one. ``need`` gives bytes by context.
    """
    most = trained or place.context
    doubled = [place.context * 2**n for n in range(1, 24) if place.context * 2**n < most]
    return [
        length
        for length in [most, *reversed(doubled)]
        if length > place.context and 2 * need(length) <= place.room
    ]


def find(
    weights: Path,
    manifest: Manifest,
    own: LaunchSettings,
    measured: Measured,
    limit: float,
    drafts: Mapping[str, Draft],
    place: Place,
    threads: int,
    ask: Ask,
) -> Found:
    """Try what may suit a version that writes; ``own`` is what its parent was told, which stays."""
    plain = Exam(weights=str(weights), chat=manifest.task == "chat", threads=threads)
    tried: list[str] = []
    cache = own.cache_type or _cache(plain, caches(measured, limit), ask, tried)
    held = msgspec.structs.replace(plain, cache=cache)
    draft = own.draft if own.draft is not None else _draft(held, drafts, ask, tried)
    guess = drafts.get(draft or "")
    slots = own.slots or place.slots

    def need(context: int) -> int:
        size = weights.stat().st_size
        found = memory_needed(manifest, size, context, slots, cache or "")
        if guess is not None:
            found += memory_needed(guess.manifest, guess.bytes, context, slots, cache or "")
        return found

    launched = msgspec.structs.replace(
        held, slots=slots, draft=str(guess.path) if guess else None, context=own.context
    )
    context, marks = own.context, None
    if context is None:
        context, marks = _context(launched, contexts(need, manifest.context, place), place, ask,
                                  tried)  # fmt: skip
    if marks is None:
        least = min(place.context, manifest.context or place.context)
        marks = ask(msgspec.structs.replace(launched, context=context or least))
    return Found(
        settings=msgspec.structs.replace(own, context=context, cache_type=cache, draft=draft),
        speed=Speed(read=marks.read, write=marks.write, memory=marks.memory),
        tried=tuple(tried),
    )


def _cache(plain: Exam, kinds: list[str], ask: Ask, tried: list[str]) -> str | None:
    for kind in kinds:
        with_, without = _beside(msgspec.structs.replace(plain, cache=kind), plain, ask)
        if with_ is None or without is None:
            tried.append(f"key-value cache {kind}: the engine does not run with it")
            continue
        ratios = with_.read / max(without.read, 1e-9), with_.write / max(without.write, 1e-9)
        kept = min(ratios) >= HARMLESS
        tried.append(
            f"key-value cache {kind}: reads {ratios[0]:.2f} and writes {ratios[1]:.2f} times as "
            f"fast as with f16, {'kept' if kept else 'left out'}"
        )
        if kept:
            return kind
    return None


def _draft(held: Exam, drafts: Mapping[str, Draft], ask: Ask, tried: list[str]) -> str | None:
    best, fastest = None, WORTH
    alone = msgspec.structs.replace(held, slots=1)
    for name, draft in drafts.items():
        guessing = msgspec.structs.replace(alone, draft=str(draft.path))
        with_, without = _beside(guessing, alone, ask)
        if with_ is None or without is None:
            tried.append(f"draft {name}: it does not go with this model")
            continue
        ratio = with_.write / max(without.write, 1e-9)
        tried.append(f"draft {name}: writes {ratio:.2f} times as fast as without")
        if ratio >= fastest:
            best, fastest = name, ratio
    return best


def _context(
    launched: Exam, lengths: list[int], place: Place, ask: Ask, tried: list[str]
) -> tuple[int | None, Marks | None]:
    """Return the longest context that is loaded and takes no more memory than there is."""
    for length in lengths:
        marks = _asked(msgspec.structs.replace(launched, context=length), ask)
        fits = marks is not None and marks.memory <= place.room
        told = f"{marks.memory / 1e6:,.0f} MB resident" if marks is not None else "not loaded"
        tried.append(f"context {length}: {told}, {'kept' if fits else 'left out'}")
        if fits:
            return length, marks
    return None, None


def _beside(one: Exam, other: Exam, ask: Ask) -> tuple[Marks | None, Marks | None]:
    """Ask both one after the other: what else the machine does slows both."""
    return _asked(one, ask), _asked(other, ask)


def _asked(exam: Exam, ask: Ask) -> Marks | None:
    try:
        return ask(exam)
    except EngineLost:
        return None
