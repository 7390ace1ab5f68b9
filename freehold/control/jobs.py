"""Long work: started, watched, ended; a few at once, the others wait; progress for whoever asks."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import msgspec

from freehold.errors import Conflict, FreeholdError, Missing, NoCapacity, Unavailable

KEPT = 200
AT_ONCE = 4
WAITING = 100
BYTES = frozenset({"fetch", "download", "store", "verify", "scan", "push", "pack", "unpack"})
"""Stages that move bytes, or read them."""
State = Literal["running", "done", "failed"]


class Failure(msgspec.Struct, frozen=True):
    """Why a job failed, as an error's code and text."""

    code: str
    message: str


class Job(msgspec.Struct, kw_only=True):
    """One piece of long work. ``done`` of ``total`` is in ``unit``; total 0 is unknown.

    A stage that moves no bytes tells the share that is done: whatever its total, only that counts.
    """

    id: str
    kind: str
    subject: str
    state: State = "running"
    stage: str = "queued"
    done: int = 0
    total: int = 0
    unit: Literal["bytes", "share"] = "bytes"
    result: dict[str, object] | None = None
    error: Failure | None = None


Work = Callable[[Callable[[str, int, int], None]], dict[str, object]]


async def _untold(_job: "Job") -> None:
    """Nobody wants to hear of the end of jobs."""


def new_id() -> str:
    """Return a name for a job."""
    return secrets.token_hex(6)


class Jobs:
    """The jobs of this process. The same work asked for twice at once is one job.

    They have threads of their own: what else runs in threads does not wait for them. ``ended`` is
    called with each that is over, before anybody sees that it is; in the context it was asked in.
    """

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self.ended: Callable[[Job], Awaitable[None]] = _untold
        self._threads = ThreadPoolExecutor(at_once, "job")
        self._asked: dict[str, object] = {}
        self._jobs: dict[str, Job] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._stopping = False
        self._cancelled: dict[str, str] = {}

    def start(
        self, kind: str, subject: str, work: Work, same: object = None, job_id: str | None = None
    ) -> Job:
        """Start work in a thread, or return the running job of the same kind, subject and ``same``.

        ``same`` is everything else that the work depends on. ``job_id`` names a job that goes on
        from an earlier life.
        """
        asked = (kind, subject, same)
        for running, of in self._asked.items():
            if of == asked:
                return self._jobs[running]
        if len(self._asked) >= WAITING:
            text = f"{WAITING} jobs run or wait already: wait until some are over"
            raise NoCapacity("unavailable.jobs", text, retry_after=10)
        job = Job(id=job_id or new_id(), kind=kind, subject=subject)
        self._jobs[job.id], self._asked[job.id] = job, asked
        self._tasks[job.id] = asyncio.get_running_loop().create_task(self._run(job, work))
        for old in [i for i, j in self._jobs.items() if j.state != "running"][:-KEPT]:
            del self._jobs[old]
        return job

    def running(self, kind: str) -> list[Job]:
        """Return the jobs of a kind that are not over."""
        return [job for job in self._jobs.values() if job.kind == kind and job.state == "running"]

    def get(self, job_id: str) -> Job:
        """Return a job as it stands."""
        job = self._jobs.get(job_id)
        if job is None:
            raise Missing("missing.job", f"no job {job_id!r:.40}: jobs end with the process")
        return job

    def all(self) -> list[Job]:
        """Return the jobs that are remembered, oldest first."""
        return list(self._jobs.values())

    async def wait(self, job_id: str, patience: float) -> Job:
        """Return the job when it is over, or as it stands after ``patience`` seconds."""
        self.get(job_id)
        task = self._tasks.get(job_id)
        if task is not None:
            await asyncio.wait((task,), timeout=patience)
        return self.get(job_id)

    def cancel(self, job_id: str, by: str) -> Job:
        """End a job at its next report of progress; ``Conflict`` when it is over already."""
        job = self.get(job_id)
        if job.state != "running":
            raise Conflict("conflict.job", f"job {job_id} is over already: it is {job.state}")
        self._cancelled.setdefault(job_id, by)
        return job

    async def stop(self) -> None:
        """End all jobs at their next report of progress."""
        self._stopping = True
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=5)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, job: Job, work: Work) -> None:
        def progress(stage: str, done: int, total: int) -> None:
            if self._stopping:
                raise Unavailable("unavailable.stopping", "Freehold is stopping: ask again later")
            if job.id in self._cancelled:
                told = f"{job.kind} {job.subject} was cancelled by {self._cancelled[job.id]}"
                raise Unavailable("unavailable.cancelled", told)
            job.stage, job.done, job.total = stage, done, total
            job.unit = "bytes" if stage in BYTES else "share"

        try:
            loop = asyncio.get_running_loop()
            job.result = await loop.run_in_executor(self._threads, work, progress)
        except FreeholdError as error:
            job.error = Failure(error.code, error.message)
        except asyncio.CancelledError:
            job.error = Failure("unavailable.stopping", "Freehold stopped: ask again")
            raise
        except OSError as error:
            job.error = Failure("unavailable.io", str(error))
        except Exception as error:
            job.error = Failure("broken.internal", f"internal error: {type(error).__name__}")
            raise
        finally:
            try:
                await self.ended(job)
            finally:
                job.state = "done" if job.error is None else "failed"
                self._tasks.pop(job.id, None)
                self._asked.pop(job.id, None)
                self._cancelled.pop(job.id, None)
