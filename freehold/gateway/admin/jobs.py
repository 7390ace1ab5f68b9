"""Long work: how far it is."""

from types import MappingProxyType

from freehold.control.control import Control
from freehold.control.jobs import Job
from freehold.gateway.admin.ask import Ask
from freehold.policy.permissions import permit

LONGEST_WAIT = 30.0
ENDS_WITHIN = 10.0
STARTED_BY = MappingProxyType(
    {"engine": "engine:write", "tune": "deployment:write", "push": "model:push",
     "gc": "model:remove"}
)  # fmt: skip
"""Kinds of jobs to the permission that they are started with; any other is an import's."""


async def list_jobs(_ask: Ask, control: Control) -> list[Job]:
    """List the jobs of this life of control."""
    return control.jobs.all()


async def show(ask: Ask, control: Control) -> Job:
    """Show a job, when it is over or after ``wait`` seconds."""
    patience = ask.number("wait", 0.0, 0.0, LONGEST_WAIT)
    return await control.jobs.wait(ask.params["job"], patience)


async def cancel(ask: Ask, control: Control) -> Job:
    """End a job and what it started; whoever may start such a job may."""
    job = control.jobs.get(ask.params["job"])
    permit(ask.principal, STARTED_BY.get(job.kind, "model:import"))
    control.jobs.cancel(job.id, ask.principal.name)
    return await control.jobs.wait(job.id, ENDS_WITHIN)
