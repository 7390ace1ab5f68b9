"""Long work: how far it is."""

from freehold.control.control import Control
from freehold.control.jobs import Job
from freehold.gateway.admin.ask import Ask

LONGEST_WAIT = 30.0


async def list_jobs(_ask: Ask, control: Control) -> list[Job]:
    """List the jobs of this life of control."""
    return control.jobs.all()


async def show(ask: Ask, control: Control) -> Job:
    """Show a job, when it is over or after ``wait`` seconds."""
    patience = ask.number("wait", 0.0, 0.0, LONGEST_WAIT)
    return await control.jobs.wait(ask.params["job"], patience)
