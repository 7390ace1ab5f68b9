"""``freehold apply, export``: the whole desired state as a file."""

import sys
from pathlib import Path
from typing import Any

import click

from freehold.cli.agreement import agreed, can_ask
from freehold.cli.client import connected
from freehold.cli.command import Options, command
from freehold.cli.output import emit, follow, say
from freehold.cli.words import counted
from freehold.errors import FreeholdError, Invalid, Unavailable


@command()
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--plan", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--yes", is_flag=True, help="Remove what FILE does not name without asking.")
def apply(options: Options, file: Path, plan: bool, yes: bool) -> None:
    """Make the whole desired state that of FILE.

    Deployments that FILE does not name are removed. On a terminal you are asked first; elsewhere
    that needs --yes.
    """
    text = _read(file)
    with connected(options, creates=True) as client:
        try:
            planned = client.post("/api/desired/plan", {"document": text})
        except FreeholdError as error:
            if error.code != "invalid.document":
                raise
            raise Invalid(error.code, f"{file}: {error.message}") from error
        if not options.as_json:
            say("\n".join(map(_line, planned["changes"])) or "nothing to change")
        if plan:
            emit(options, planned, "")
            return
        if not yes:
            _ask_about(planned["changes"], asking=can_ask(options) and str(file) != "-")
        result = client.put("/api/desired", {"document": text})
        failures = []
        for job in result["jobs"]:
            try:
                follow(client, job, job["subject"].rpartition(" as ")[2])
            except FreeholdError as error:
                failures.append(f"{job['subject']}: {error.message}")
    if failures:
        raise Unavailable("unavailable.source", "; ".join(failures))
    emit(options, result, f"applied {counted(len(result['changes']), 'change')}")


@command()
def export(options: Options) -> None:
    """Print the whole desired state as TOML; never a secret."""
    with connected(options) as client:
        found = client.get("/api/desired")
    emit(options, found, found["document"].rstrip("\n"))


def _ask_about(changes: list[dict[str, Any]], *, asking: bool) -> None:
    """Let nothing be removed that nobody has agreed to."""
    removed = [f"{each['kind']} {each['name']}" for each in changes if each["act"] == "remove"]
    if not removed:
        return
    what = ", ".join(removed)
    if not asking:
        raise Invalid(
            "invalid.unconfirmed",
            f"this removes {what}, which the document does not name: add --yes, or name it there",
        )
    agreed(what)


def _read(file: Path) -> str:
    try:
        if str(file) == "-":
            return sys.stdin.read()
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid("invalid.document", f"cannot read {file}: {error}") from error


def _line(change: dict[str, Any]) -> str:
    fields = f" ({', '.join(change['fields'])})" if change["fields"] else ""
    return f"{change['act']:<7} {change['kind']} {change['name']}{fields}"
