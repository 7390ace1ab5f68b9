"""Compressions and trials as jobs: one compression of a model at a time, taken up after a kill."""

import asyncio
import shutil
from contextlib import suppress

import msgspec

from freehold.control.control import Control
from freehold.control.jobs import Job, new_id
from freehold.errors import Conflict, Unavailable
from freehold.models.compress import run
from freehold.models.compress.launch import Place
from freehold.models.compress.request import Request
from freehold.models.examine import TrialRequest, cases_of, examine_versions
from freehold.models.registry import Version
from freehold.models.source import Progress

FORGOTTEN_AFTER = 7 * 86400.0
KIND = "compress"


def start(control: Control, version: Version, request: Request, by: str) -> Job:
    """Start a compression, or join the same one; another one of the same model is refused."""
    run.check(request, control.registry.admit(version), control.compressors)
    subject = f"{version.row.model}:{version.row.number}"
    for job in control.jobs.running(KIND):
        same = job.subject == subject and control.compressing.get(job.id) == request
        if job.subject.partition(":")[0] == version.row.model and not same:
            raise Conflict(
                "conflict.compressing",
                f"{job.subject} is being compressed already, otherwise than asked: wait for job "
                f"{job.id}, or ask for the same",
            )
        if same:
            return job
    wanted = run.Job(
        id=new_id(), model=version.row.model, number=version.row.number, request=request, by=by
    )
    run.note(wanted, control.workshop)
    return _start(control, wanted)


def resume(control: Control) -> None:
    """Go on with what was under way when the last life ended; forget what nobody came back to."""
    for folder in run.unused_since(control.workshop, FORGOTTEN_AFTER):
        shutil.rmtree(folder, ignore_errors=True)
    for wanted in run.waiting(control.workshop):
        _start(control, wanted)


def start_trial(control: Control, a: Version, b: Version, request: TrialRequest) -> Job:
    """Start asking two versions the same questions."""
    cases_of(a, b, request)

    def work(progress: Progress) -> dict[str, object]:
        paths = [control.blobs.path(version.row.digest) for version in (a, b)]
        found = examine_versions(a, b, paths[0], paths[1], request, progress)
        return dict(msgspec.to_builtins(found))

    names = [f"{version.row.model}:{version.row.number}" for version in (a, b)]
    return control.jobs.start("trial", " against ".join(names), work, same=request)


def _start(control: Control, wanted: run.Job) -> Job:
    loop = asyncio.get_running_loop()
    runtime = control.settings.runtime
    place = Place(room=control.pool.room, context=runtime.context, slots=runtime.slots)

    def work(progress: Progress) -> dict[str, object]:
        try:
            done = run.compress(
                wanted, control.workshop, control.compressors, place, progress, control.clock()
            )
        except Unavailable as error:
            # Stopped, not failed: the next life goes on. Whatever else went wrong is over.
            if error.code != "unavailable.stopping":
                _forget(control, wanted)
            raise
        except BaseException:
            _forget(control, wanted)
            raise
        finally:
            with suppress(RuntimeError):  # the loop is over: so is this life
                loop.call_soon_threadsafe(control.compressing.pop, wanted.id, None)
        if done.promoted:
            asyncio.run_coroutine_threadsafe(control.changed(), loop)
        else:
            loop.call_soon_threadsafe(control.deployments.forget_plans)
        return dict(msgspec.to_builtins(done))

    control.compressing[wanted.id] = wanted.request
    subject = f"{wanted.model}:{wanted.number}"
    return control.jobs.start(KIND, subject, work, same=wanted.request, job_id=wanted.id)


def _forget(control: Control, wanted: run.Job) -> None:
    """Do not take it up again in the next life; what it has done so far stays for a second try."""
    run.forget(wanted, control.workshop)
