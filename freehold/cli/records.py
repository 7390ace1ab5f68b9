"""``freehold usage, audit list``: who used what, and who did what."""

from typing import Any

import click

from freehold.cli.client import connected
from freehold.cli.command import Options, command
from freehold.cli.names import complete
from freehold.cli.output import emit, table
from freehold.cli.words import moment
from freehold.record.entry import OUTCOMES


@command()
@click.option("--since", metavar="DAY", help="From this UTC day on, as 2026-01-31.")
def usage(options: Options, since: str | None) -> None:
    """Show who used what, by UTC day, principal and deployment."""
    with connected(options) as client:
        found = client.get("/api/usage", since=since)["usage"]
    rows = [
        (u["day"], u["principal"] or None, u["deployment"] or None, f"{u['requests']:,}",
         f"{u['failed']:,}", f"{u['tokens_in']:,}", f"{u['tokens_out']:,}",
         f"{u['milliseconds'] / 1000:,.1f}")
        for u in found
    ]  # fmt: skip
    head = ("DAY", "PRINCIPAL", "DEPLOYMENT", "REQUESTS", "FAILED", "READ", "WRITTEN", "SECONDS")
    emit(options, found, table(head, rows, "nothing was used"))


@click.group()
def audit() -> None:
    """The record of every request and act."""


@command(audit, "list")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True,
              help="At most so many.")  # fmt: skip
@click.option("--principal", help="Only of this principal.")
@click.option("--deployment", shell_complete=complete("deployment"),
              help="Only of this deployment.")  # fmt: skip
@click.option("--id", "request", help="Only this request.")
@click.option("--action", help="Only of this action, as model:import.")
@click.option("--outcome", type=click.Choice(OUTCOMES), help="Only with this outcome.")
@click.option("--before", type=float, help="Only before this time, in epoch seconds.")
def list_(options: Options, limit: int, before: float | None, request: str | None,
          **given: str | None) -> None:  # fmt: skip
    """List records, newest first; never any text of a prompt."""
    asked = {"limit": str(limit), "id": request, "before": None if before is None else str(before)}
    with connected(options) as client:
        found = client.get("/api/audit", **asked, **given)
    head = ("AT (UTC)", "ID", "PRINCIPAL", "DID", "OUTCOME", "READ", "WRITTEN", "MS")
    emit(options, found, table(head, [_row(r) for r in found["records"]], "no records"))


def _row(record: dict[str, Any]) -> tuple[object, ...]:
    did = record.get("subject") or record["action"]
    if record.get("deployment"):
        did = f"{record['action']} {record['deployment']}"
    outcome = record["outcome"] + (f" {record['error']}" if record.get("error") else "")
    return (
        moment(record["at"]), record["id"], record.get("principal"), did, outcome,
        record.get("tokens_in"), record.get("tokens_out"), round(record.get("total_ms", 0)),
    )  # fmt: skip
