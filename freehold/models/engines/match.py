"""A build held against the wheel on one model: the same answers, and which is faster."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import msgspec

from freehold.errors import Broken
from freehold.models.engines.agree import Agreement, Distribution, compare, is_lost
from freehold.models.engines.bench import STEPS, Bench, running
from freehold.models.registry import Version
from freehold.models.source import Progress
from freehold.runtime.builds import Match, Speed
from freehold.runtime.engine import Engine, Launch, Native

ROUNDS = 3
CLOSE = 0.999
"""Least cosine between two embeddings of one text that are the same answer."""


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What engines are tried with: how they are run, where their files go."""

    engine: Engine
    folder: Path
    threads: int
    rounds: int = ROUNDS


def match(
    native: Native, version: Version, weights: Path, setting: Setting, progress: Progress
) -> Match:
    """Run a build and the wheel side by side on a version; ``Broken`` when they answer otherwise.

    Measurements alternate, so that whatever else the machine does hits both alike.
    """
    steps = setting.rounds + 2
    progress("start", 0, steps)
    stopped = lambda: progress("start", 0, steps)  # noqa: E731
    ours, wheel = (trial_launch(version, setting.threads, each) for each in (native, None))
    with (
        running(setting.engine, ours, weights, setting.folder, stopped) as build,
        running(setting.engine, wheel, weights, setting.folder, stopped) as reference,
    ):
        progress("compare", 1, steps)
        embeds = version.manifest.task == "embedding"
        found = _same_vectors(build, reference) if embeds else same_tokens(build, reference)
        if found.why is not None:
            raise Broken(
                "broken.engine",
                f"the build does not answer {version.row.model}:{version.row.number} as the wheel "
                f"does: {found.why}; it is not used",
            )
        pairs = []
        for number in range(setting.rounds):
            progress("measure", 2 + number, steps)
            pairs.append(tuple(_speed(each, number, embeds) for each in (build, reference)))
    return Match(
        model=f"{version.row.model}:{version.row.number}",
        digest=version.row.digest,
        architecture=version.manifest.architecture,
        places=found.places,
        agreed=found.agreed,
        furthest=found.furthest,
        build=median([pair[0] for pair in pairs]),
        wheel=median([pair[1] for pair in pairs]),
    )


def trial_launch(version: Version, threads: int, native: Native | None) -> Launch:
    """Return how a version is run for a trial."""
    longest = version.manifest.context or 4096
    return Launch(
        deployment="engine-trial",
        engine="llamacpp",
        model="trial",
        task=version.manifest.task,
        weights=version.row.digest,
        context=min(4096, longest),
        slots=8,
        threads=threads,
        native=native,
    )


def median(speeds: Sequence[Speed]) -> Speed:
    """Return the median of each number, 0 where nothing was measured. Pure."""
    if not speeds:
        return Speed(reading=0.0, writing=0.0, eight=0.0)
    return Speed(
        reading=round(statistics.median(each.reading for each in speeds), 2),
        writing=round(statistics.median(each.writing for each in speeds), 2),
        eight=round(statistics.median(each.eight for each in speeds), 2),
    )


def smallest_of_each(versions: Sequence[Version]) -> list[Version]:
    """Return the smallest sound version of each architecture: what a build is tried on. Pure."""
    chosen: dict[str, Version] = {}
    for version in sorted(versions, key=lambda each: each.row.bytes):
        if version.damage is None and version.manifest.task != "rerank":
            chosen.setdefault(version.manifest.architecture, version)
    return list(chosen.values())


def _speed(bench: Bench, seed: int, embeds: bool) -> Speed:
    return bench.embedding_speed(seed) if embeds else bench.speed(seed)


def same_tokens(one: Bench, reference: Bench) -> Agreement:
    """Compare next tokens at the same places: what the reference goes on with is forced on both."""
    ours: list[Distribution] = []
    theirs: list[Distribution] = []
    prompts = reference.prompts()
    for prompt in prompts:
        path = reference.told(prompt)
        tokens = [token for token, _ in path]
        own = one.told(prompt)
        together = 0
        while together < min(len(own), len(path)) and own[together][0] == tokens[together]:
            together += 1
        known = [likely for _, likely in own[: together + 1]][: len(path)]
        rest = [one.told([*prompt, *tokens[:at]], 1)[0][1] for at in range(len(known), len(path))]
        ours += [*known, *rest]
        theirs += [likely for _, likely in path]
        if is_lost(compare(ours, theirs), len(prompts) * STEPS):
            break
    return compare(ours, theirs)


def _same_vectors(build: Bench, reference: Bench) -> Agreement:
    cosines = [_cosine(a, b) for a, b in zip(build.vectors(), reference.vectors(), strict=True)]
    worst, close = min(cosines), sum(each >= CLOSE for each in cosines)
    return Agreement(
        places=len(cosines),
        agreed=close,
        furthest=round(1 - worst, 6),
        why=None if close == len(cosines) else f"an embedding has a cosine of {worst:.5f}",
    )


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / (math.hypot(*one) * math.hypot(*other) or 1.0)
