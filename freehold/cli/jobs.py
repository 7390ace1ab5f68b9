"""``freehold job list, cancel``: long work, seen and ended."""

import click

from freehold.cli.client import connected, part
from freehold.cli.command import Options, command
from freehold.cli.output import emit, how_far, table


@click.group()
def job() -> None:
    """Long work: what runs, and ending it."""


@command(job, "list")
def list_(options: Options) -> None:
    """List what runs and what has ended since Freehold started."""
    with connected(options) as client:
        found = client.get("/api/jobs")
    rows = [
        (each["id"], each["kind"], each["subject"], each["state"],
         each["error"]["message"] if each["error"] else f"{each['stage']}{how_far(each)}")
        for each in found
    ]  # fmt: skip
    head = ("ID", "KIND", "OF", "STATE", "STAGE")
    emit(options, found, table(head, rows, "nothing has run since Freehold started"))


@command(job)
@click.argument("job_id", metavar="ID")
def cancel(options: Options, job_id: str) -> None:
    """End a job and the processes it started; what can be gone on with later is kept."""
    with connected(options) as client:
        found = client.delete(f"/api/jobs/{part(job_id)}")
    ended = "is cancelled" if found["state"] != "running" else "is being cancelled"
    emit(options, found, f"{found['kind']} {found['subject']} {ended}")
