"""Builds that do not start: deployments go back to the wheel, and the build itself is tried.

Whose fault it was is found out, not guessed from what an engine says as it ends: once the wheel has
come up in its place, the build is started alone, on the smallest model of a kind that it was
verified on. Where it starts, the doubt stays with that one deployment.
"""

import asyncio
import logging
import secrets

import msgspec

from freehold.control.control import Control
from freehold.control.engines import Yard, may_run
from freehold.errors import FreeholdError, Missing
from freehold.models.deploy import LOCAL_ENGINE
from freehold.models.engines.bench import running
from freehold.models.engines.match import trial_launch
from freehold.models.fallback import Doubt, doubted, is_up, untried
from freehold.models.registry import Version
from freehold.models.source import ABORTS, Progress
from freehold.record.entry import Entry, encode
from freehold.runtime.builds import Build, Failing
from freehold.runtime.engine import Launch

_log = logging.getLogger("freehold.control")


def watch(control: Control) -> None:
    """Take the wheel where a build does not come up; try builds that are doubted."""
    deployments, replicas = control.deployments, list(control.pool.replicas.values())
    found = doubted(deployments.plans(), replicas, control.settings.runtime.build)
    for launch, doubt in found.items():
        _tell_doubt(control, launch, doubt)
    if found:
        deployments.doubts = {**deployments.doubts, **found}
        deployments.forget_plans()
    for launch in untried(deployments.doubts, replicas):
        doubt = deployments.doubts[launch]
        if is_up(doubt.build, replicas):
            _settle(control, doubt.build)
        elif not control.yard.locked():
            _start_trial(control, doubt)
            _settle(control, doubt.build)


def _settle(control: Control, build: str) -> None:
    doubts = control.deployments.doubts
    control.deployments.doubts = {
        launch: msgspec.structs.replace(each, tried=each.tried or each.build == build)
        for launch, each in doubts.items()
    }


def _start_trial(control: Control, doubt: Doubt) -> None:
    def work(progress: Progress) -> dict[str, object]:
        with Yard(control) as yard:
            build = control.builds.get(doubt.build)
            reason = _why_not(control, yard, build, progress)
            if reason is not None:
                failing = Failing(since=control.clock(), reason=reason)
                control.builds.condemn(build.id, failing)
                control.loop.call_soon_threadsafe(_tell_failing, control, build.id, failing)
        return {"build": doubt.build, "failing": reason is not None, "reason": reason}

    control.jobs.start("engine", f"try {doubt.build}", work)


def _why_not(control: Control, yard: Yard, build: Build, progress: Progress) -> str | None:
    """Start a build on the smallest model there is for it; return why it does not come up."""
    version = _smallest(control, build)
    weights = control.upkeep.whole(version.artifacts[0].digest)
    launch = trial_launch(version, control.settings.runtime.threads, control.builds.native(build))

    def begin() -> None:
        progress("start", 0, 1)

    try:
        with running(control.engines[LOCAL_ENGINE], launch, weights, yard.trials, begin):
            return None
    except FreeholdError as error:
        if error.code in ABORTS:
            raise
        begin()  # an engine that ends because Freehold does says nothing of the build
        return error.message


def _smallest(control: Control, build: Build) -> Version:
    kinds = {match.architecture for match in build.matches}
    found = [
        version
        for name in control.registry.names()
        for version in control.registry.versions(name)
        if version.manifest.architecture in kinds
        and version.damage is None
        and may_run(control, version)
    ]
    if not found:
        raise Missing("missing.model", f"there is no model any more to try {build.id} on")
    return min(found, key=lambda version: version.row.bytes)


def _tell_doubt(control: Control, launch: Launch, doubt: Doubt) -> None:
    told = f"{launch.deployment} goes back to the wheel: {doubt.build} does not start"
    _log.warning("%s: %s", told, doubt.reason)
    _record(control, "engine:doubted", told, launch.deployment)


def _tell_failing(control: Control, build: str, failing: Failing) -> None:
    told = f"{build} is failing and not chosen until it is picked or built again"
    _log.warning("%s: %s", told, failing.reason)
    _record(control, "engine:failing", told)
    control.deployments.forget_plans()


def _record(control: Control, action: str, told: str, deployment: str | None = None) -> None:
    entry = Entry(
        id=f"ctl-{secrets.token_hex(12)}", at=control.clock(), action=action, outcome="failed",
        deployment=deployment, subject=told,
    )  # fmt: skip
    control.journal.append(encode(entry), entry).add_done_callback(_heard)


def _heard(written: "asyncio.Future[None]") -> None:
    """Say in the log what could not be said in the record."""
    if not written.cancelled() and (error := written.exception()):
        _log.error("that an engine does not start could not be recorded: %s", error)
