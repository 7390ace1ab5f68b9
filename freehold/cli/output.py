"""What goes out: results on stdout, everything else on stderr."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
import msgspec
from tqdm import tqdm

from freehold.cli.client import Client
from freehold.cli.command import Options
from freehold.errors import FreeholdError

UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
POLL = "0.3"


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


def size(count: int) -> str:
    """Return bytes as people read them."""
    for unit, name in UNITS:
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} B"


def big(count: int) -> str:
    """Return a number of parameters as people read it."""
    for unit, name in ((10**9, "B"), (10**6, "M")):
        if count >= unit:
            return f"{count / unit:.1f}{name}"
    return str(count)


class Bar:
    """A progress bar over the stages of a job."""

    def __init__(self, label: str, *, quiet: bool = False) -> None:
        self._label = label
        self._stage = ""
        self._bar: Any = None
        self._quiet = quiet

    def show(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage is, in bytes; a total of 0 is unknown."""
        if self._quiet or not total:
            return
        if stage != self._stage or self._bar is None:
            self.close()
            self._stage = stage
            self._bar = tqdm(
                total=total, unit="B", unit_scale=True, desc=f"{self._label}: {stage}",
                file=sys.stderr, mininterval=0.2, dynamic_ncols=True,
            )  # fmt: skip
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """End the bar's line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


@contextmanager
def bar(label: str, *, quiet: bool = False) -> Iterator[Bar]:
    """Yield a progress bar."""
    made = Bar(label, quiet=quiet)
    try:
        yield made
    finally:
        made.close()


def follow(client: Client, job: dict[str, Any], label: str) -> dict[str, Any]:
    """Show a job's progress until it is over; return its result, or raise its error."""
    with bar(label) as shown:
        while job["state"] == "running":
            shown.show(job["stage"], job["done"], job["total"])
            job = client.get(f"/api/jobs/{job['id']}", wait=POLL)
        if job["state"] == "done" and job["total"]:
            shown.show(job["stage"], job["total"], job["total"])
    if job["error"]:
        raise FreeholdError(job["error"]["code"], job["error"]["message"])
    result: dict[str, Any] = job["result"]
    return result


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "-"
    return str(value)
