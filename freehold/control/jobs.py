"""Long work: started, watched, ended; one thread a job, progress for whoever asks."""

import asyncio
import secrets
from collections.abc import Callable
from typing import Literal

import msgspec

from freehold.errors import FreeholdError, Missing, Unavailable

KEPT = 200
State = Literal["running", "done", "failed"]


class Failure(msgspec.Struct, frozen=True):
    """Why a job failed, as an error's code and text."""

    code: str
    message: str


class Job(msgspec.Struct, kw_only=True):
    """One piece of long work. ``done`` of ``total`` is in bytes; total 0 is unknown."""

    id: str
    kind: str
    subject: str
    state: State = "running"
    stage: str = "queued"
    done: int = 0
    total: int = 0
    result: dict[str, object] | None = None
    error: Failure | None = None


Work = Callable[[Callable[[str, int, int], None]], dict[str, object]]


class Jobs:
    """The jobs of this process. The same work asked for twice at once is one job."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._stopping = False

    def start(self, kind: str, subject: str, work: Work) -> Job:
        """Start work in a thread, or return the running job of the same kind and subject."""
        for job in self._jobs.values():
            if (job.kind, job.subject, job.state) == (kind, subject, "running"):
                return job
        job = Job(id=secrets.token_hex(6), kind=kind, subject=subject)
        self._jobs[job.id] = job
        self._tasks[job.id] = asyncio.get_running_loop().create_task(self._run(job, work))
        for old in [i for i, j in self._jobs.items() if j.state != "running"][:-KEPT]:
            del self._jobs[old]
        return job

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

    async def stop(self) -> None:
        """End all jobs at their next report of progress."""
        self._stopping = True
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=5)

    async def _run(self, job: Job, work: Work) -> None:
        def progress(stage: str, done: int, total: int) -> None:
            if self._stopping:
                raise Unavailable("unavailable.stopping", "Freehold is stopping: ask again later")
            job.stage, job.done, job.total = stage, done, total

        try:
            job.result = await asyncio.to_thread(work, progress)
            job.state = "done"
        except FreeholdError as error:
            job.error, job.state = Failure(error.code, error.message), "failed"
        except OSError as error:
            job.error, job.state = Failure("unavailable.io", str(error)), "failed"
        except Exception as error:
            job.error = Failure("broken.internal", f"internal error: {type(error).__name__}")
            job.state = "failed"
            raise
        finally:
            self._tasks.pop(job.id, None)
