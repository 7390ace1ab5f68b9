"""Finding how a deployment runs best on this machine, and storing that with it."""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from freehold.control.control import Control
from freehold.control.engines import Yard, may_run
from freehold.control.jobs import Job
from freehold.errors import Conflict, FreeholdError, Invalid, Missing
from freehold.models.deploy import LOCAL_ENGINE, draft_of, local_launch
from freehold.models.deployment import Deployment
from freehold.models.engines.bench import Bench, running
from freehold.models.engines.match import median, same_tokens
from freehold.models.engines.tune import Choice, Goal, Knob, Outcome, Pair, search, turns
from freehold.models.registry import Version
from freehold.models.source import ABORTS, Progress
from freehold.runtime.engine import Engine, Launch

MOST_DRAFTS = 2
SMALLER = 3
"""How many times as large as its draft a model must be for the draft to be worth a try."""


def start_tune(
    control: Control, name: str, goal: Goal, by: str, only: Sequence[Knob] = (), rounds: int = 2
) -> Job:
    """Start measuring ways of running a deployment; the best one becomes what it shall be.

    With ``only``, no other knobs are turned.
    """
    deployment = _find(control, name)
    version = control.registry.resolve(deployment.model or "")
    if version.manifest.task not in ("chat", "completion"):
        raise Invalid(
            "invalid.deployment", f"{name} writes no text: there is nothing to tune", param="name"
        )

    def work(progress: Progress) -> dict[str, object]:
        with Yard(control) as yard:
            tuner = _Tuner(control, deployment, version, yard.trials, progress)
            outcome = tuner.run(goal, only, rounds)
        stored = _store(control, deployment, outcome.choice, by)
        result: dict[str, object] = msgspec.to_builtins(outcome)
        return {**result, "deployment": msgspec.to_builtins(stored)}

    return control.jobs.start("tune", name, work, same=(goal, tuple(only), rounds))


class _Tuner:
    """Measures what a search asks for."""

    def __init__(
        self, control: Control, deployment: Deployment, version: Version, folder: Path,
        progress: Progress,
    ) -> None:  # fmt: skip
        self._control, self._deployment, self._version = control, deployment, version
        self._folder, self._progress = folder, progress
        self._engine: Engine = control.engines[LOCAL_ENGINE]
        self._weights = control.upkeep.whole(version.artifacts[0].digest)
        self._done = self._total = 0
        self._rounds = 1

    def run(self, goal: Goal, only: Sequence[Knob], rounds: int) -> Outcome:
        self._rounds = rounds
        launch = self._launch(self._deployment)
        start = Choice(
            threads=launch.threads or _cores(physical=True),
            slots=launch.slots,
            context=launch.context,
            batch=self._deployment.batch,
            cache_type=self._deployment.cache_type or launch.cache_type or None,
            flash=self._deployment.flash,
            draft=self._drafting(),
            drafted=self._deployment.drafted or launch.drafted or None,
        )
        tried = turns(start, _cores(), self._contexts(start), self._drafts())
        tried = [(knob, changes) for knob, changes in tried if not only or knob in only]
        self._total = sum(len(changes) for _, changes in tried)
        asking = search(start, tried, goal)
        try:
            asked = next(asking)
            while True:
                self._progress("measure", self._done, self._total)
                answer = self._measure(*asked)
                self._done += 1
                asked = asking.send(answer)
        except StopIteration as end:
            found: Outcome = end.value
            return found

    def _drafting(self) -> str | None:
        """Return what guesses now, of the deployment or of the version's own settings."""
        if self._deployment.draft is not None:
            return self._deployment.draft
        found = draft_of(self._deployment, self._version, self._control.registry)
        return f"{found.row.model}:{found.row.number}" if found else None

    def _measure(self, turn: Choice, best: Choice) -> Pair:
        """Run both side by side where there is room; None for a turn that does not work out."""
        try:
            one, other = (self._launch(chosen(self._deployment, each)) for each in (turn, best))
            if one.bytes + other.bytes > self._control.pool.room:
                return None
            with self._running(other) as reference, self._running(one) as trial:
                if turn.cache_type != best.cache_type and same_tokens(trial, reference).why:
                    return None
                speeds = [
                    (trial.speed(number), reference.speed(number)) for number in range(self._rounds)
                ]
        except FreeholdError as error:
            if error.code in ABORTS:
                raise
            return None
        return median([each[0] for each in speeds]), median([each[1] for each in speeds])

    def _running(self, launch: Launch) -> AbstractContextManager[Bench]:
        draft = self._control.upkeep.whole(launch.draft) if launch.draft is not None else None

        def stopped() -> None:
            self._progress("measure", self._done, self._total)

        return running(self._engine, launch, self._weights, self._folder, stopped, draft)

    def _launch(self, deployment: Deployment) -> Launch:
        control = self._control
        return local_launch(
            deployment, self._version, control.registry, control.settings.runtime, control.builds
        )

    def _contexts(self, start: Choice) -> list[int]:
        """Return longer contexts that the model knows and two of which fit, the longest first."""
        longest = self._version.manifest.context or start.context
        found = []
        for times in (4, 2):
            wanted = min(start.context * times, longest)
            launch = self._launch(
                chosen(self._deployment, msgspec.structs.replace(start, context=wanted))
            )
            if wanted > start.context and 2 * launch.bytes <= self._control.pool.room:
                found.append(wanted)
        return list(dict.fromkeys(found))

    def _drafts(self) -> list[str]:
        ours = self._version
        registry = self._control.registry
        known = [version for name in registry.names() for version in registry.versions(name)]
        return [
            f"{version.row.model}:{version.row.number}"
            for version in sorted(known, key=lambda each: each.row.bytes)
            if version.damage is None
            and may_run(self._control, version)
            and version.manifest.parameters * SMALLER <= ours.manifest.parameters
            and version.manifest.tokenizer is not None
            and ours.manifest.tokenizer is not None
            and version.manifest.tokenizer.sha256 == ours.manifest.tokenizer.sha256
        ][:MOST_DRAFTS]


def chosen(deployment: Deployment, choice: Choice) -> Deployment:
    """Return a deployment that runs in a certain way."""
    return msgspec.structs.replace(deployment, **msgspec.structs.asdict(choice))


def _store(control: Control, deployment: Deployment, choice: Choice, by: str) -> Deployment:
    """Put what was found into the desired state, unless somebody changed it meanwhile."""
    if _find(control, deployment.name) != deployment:
        raise Conflict(
            "conflict.changed",
            f"{deployment.name} was changed while it was tuned: nothing was stored, tune it again",
        )
    wanted = chosen(deployment, choice)
    control.deployments.put(wanted, control.clock(), by)
    control.loop.call_soon_threadsafe(control.deployments.forget_plans)
    return wanted


def _find(control: Control, name: str) -> Deployment:
    found = next((each for each in control.deployments.all() if each.name == name), None)
    if found is None:
        raise Missing("missing.deployment", f"no deployment {name!r:.80}: see freehold status")
    if found.model is None:
        raise Invalid("invalid.deployment", f"{name} runs elsewhere: nothing to tune", param="name")
    return found


def _cores(*, physical: bool = False) -> int:
    import psutil

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    counted = psutil.cpu_count(logical=not physical) or 1
    return max(1, min(counted, usable or 1))
