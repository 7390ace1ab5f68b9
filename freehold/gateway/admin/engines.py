"""Engines for this machine: listed, built, picked, removed; deployments tuned."""

from typing import Annotated

import msgspec

from freehold.control.control import Control
from freehold.control.engines import Wish, remove, start_build, start_pick
from freehold.control.jobs import Job
from freehold.control.tuning import start_tune
from freehold.gateway.admin.ask import Ask, Body
from freehold.models.engines.match import ROUNDS
from freehold.models.engines.tune import Goal, Knob
from freehold.runtime.builds import WHEEL, Failing, Match, fastest, gain

Rounds = Annotated[int, msgspec.Meta(ge=0, le=100)]
Names = Annotated[tuple[str, ...], msgspec.Meta(max_length=64)]


class MatchView(msgspec.Struct, frozen=True, kw_only=True):
    """How an engine answers and how fast it is on a model; ``gain`` is beside the wheel."""

    match: Match
    gain: float


class EngineView(msgspec.Struct, frozen=True, kw_only=True):
    """An engine. ``chosen_for`` are the architectures for which ``auto`` means it.

    One that is ``failing`` did not start any more, and is chosen for none.
    """

    id: str
    kind: str
    backend: str
    version: str
    bytes: int
    made: dict[str, str]
    created: float | None
    created_by: str | None
    matches: list[MatchView]
    chosen_for: list[str]
    failing: Failing | None = None


class BuildBody(Body, frozen=True):
    """What to build an engine from, ``source`` being a file on Freehold's machine."""

    source: str | None = None
    sha256: str | None = None
    backend: str = "auto"
    jobs: Annotated[int, msgspec.Meta(ge=1, le=1024)] | None = None
    models: Names = ()
    rounds: Rounds = ROUNDS


class PickBody(Body, frozen=True):
    """What to measure: every engine, and a prebuilt server given by its path."""

    binary: str | None = None
    models: Names = ()
    rounds: Rounds = ROUNDS


class TuneBody(Body, frozen=True):
    """What a deployment shall be fast at; with ``only``, no other knobs are turned."""

    goal: Goal = "balanced"
    only: tuple[Knob, ...] = ()
    rounds: Annotated[int, msgspec.Meta(ge=1, le=100)] = 2


class EngineRemoved(msgspec.Struct, frozen=True, kw_only=True):
    """What a removal gave back."""

    id: str
    freed_bytes: int


async def list_engines(_ask: Ask, control: Control) -> list[EngineView]:
    """List engines: the wheel, and those built or found for this machine."""
    builds = control.builds.all()
    known = {match.architecture for build in builds for match in build.matches}
    best = {name: fastest(builds, name) for name in sorted(known)}
    wheel = EngineView(
        id=WHEEL,
        kind="wheel",
        backend="cpu",
        version="",
        bytes=0,
        made={},
        created=None,
        created_by=None,
        matches=[],
        chosen_for=[name for name, build in best.items() if build is None],
    )
    return [wheel] + [
        EngineView(
            id=build.id,
            kind=build.kind,
            backend=build.backend,
            version=build.version,
            bytes=build.bytes,
            made=build.made,
            created=build.created,
            created_by=build.created_by,
            matches=[MatchView(match=m, gain=round(gain(m), 2)) for m in build.matches],
            chosen_for=[name for name, b in best.items() if b is not None and b.id == build.id],
            failing=build.failing,
        )
        for build in builds
    ]


async def build(ask: Ask, control: Control) -> Job:
    """Start building an engine for this machine."""
    body = ask.read(BuildBody)
    return start_build(
        control, msgspec.convert(msgspec.to_builtins(body), Wish), ask.principal.name
    )


async def pick(ask: Ask, control: Control) -> Job:
    """Start measuring the engines there are, and take in a prebuilt one."""
    body = ask.read(PickBody)
    return start_pick(control, body.binary, body.models, body.rounds, ask.principal.name)


async def discard(ask: Ask, control: Control) -> EngineRemoved:
    """Remove an engine; deployments that ran on it change over."""
    gone = remove(control, ask.params["engine"])
    await control.changed()
    return EngineRemoved(id=gone.id, freed_bytes=gone.bytes)


async def tune(ask: Ask, control: Control) -> Job:
    """Start finding out how a deployment runs best here."""
    body = ask.read(TuneBody)
    return start_tune(
        control, ask.params["deployment"], body.goal, ask.principal.name, body.only, body.rounds
    )
