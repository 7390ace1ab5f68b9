"""What goes out: results on stdout, everything else on stderr."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec

from freehold.cli.command import Options
from freehold.cli.progress import progress
from freehold.cli.words import size
from freehold.errors import FreeholdError

if TYPE_CHECKING:  # it brings HTTP and processes with it, which a table does not need
    from freehold.cli.client import Client

POLL = "1"
"""Seconds until progress is told again; the end is told at once."""
PATIENCE, RETRY = 15.0, 0.3
"""Seconds for which nobody need answer of a job that was begun; between two questions."""


def emit(options: Options, document: object, text: str) -> None:
    """Print the result: the document as JSON, or the text for people."""
    if options.as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2))
    elif text:
        click.echo(text)


def say(text: str) -> None:
    """Tell the person at the terminal something that is not the result."""
    click.echo(text, err=True)


def table(head: Sequence[str], rows: Sequence[Sequence[object]], empty: str) -> str:
    """Return aligned columns."""
    if not rows:
        return empty
    cells = [list(head), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def follow(client: "Client", job: dict[str, Any], label: str) -> dict[str, Any]:
    """Show a job's progress until it is over; return its result, or raise its error."""
    with progress(label) as shown:
        while job["state"] == "running":
            if job["stage"] != "queued" and job["unit"] == "share" and job["total"]:
                shown.percent(job["stage"], job["done"] / job["total"])
            elif job["stage"] != "queued":
                shown.show(job["stage"], job["done"], job["total"])
            job = _standing(client, job)
        if job["state"] == "done" and job["total"] and job["unit"] == "bytes":
            shown.show(job["stage"], job["total"], job["total"])
    if job["error"]:
        raise FreeholdError(job["error"]["code"], job["error"]["message"])
    result: dict[str, Any] = job["result"]
    return result


def how_far(job: dict[str, Any]) -> str:
    """Return how far a job's stage is, as people read it: nothing where nobody knows."""
    if not job["total"]:
        return ""
    if job["unit"] == "share":
        return f" {job['done'] / job['total']:.0%}"
    return f" {size(job['done'])} of {size(job['total'])}"


def _standing(client: "Client", job: dict[str, Any]) -> dict[str, Any]:
    """Return a job as it stands. Who does it may be too busy to be heard for a moment."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            found: dict[str, Any] = client.get(f"/api/jobs/{job['id']}", wait=POLL)
            return found
        except FreeholdError as error:
            if error.code != "unavailable.control" or time.monotonic() > deadline:
                raise
        time.sleep(RETRY)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "-"
    return str(value)
