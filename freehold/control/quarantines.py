"""A version that the scan isolates is told of: a record of its own, and a line in the log.

What runs of it is stopped like any deployment that may not run: requests that are answered go on
to their end, within ``runtime.drain_timeout``, and no other begins.
"""

import asyncio
import logging
import secrets

from freehold.control.control import Control
from freehold.models.registry import PRODUCTION, Version
from freehold.models.scan.finding import decode
from freehold.record.entry import Entry, encode

ACTION = "model:quarantined"
_log = logging.getLogger("freehold.control")


def watch(control: Control) -> None:
    """Tell of every version that is isolated from now on."""

    def isolated(version: Version, by: str) -> None:
        control.loop.call_soon_threadsafe(_tell, control, version, by)

    control.registry.isolated = isolated


def _tell(control: Control, version: Version, by: str) -> None:
    row, held = version.row, version.quarantine
    rules = sorted({each.rule for each in decode(held.findings)}) if held else []
    stopped = _running(control, version)
    told = ", ".join(rules) + (f"; stopped: {', '.join(stopped)}" if stopped else "")
    entry = Entry(
        id=f"ctl-{secrets.token_hex(12)}", at=control.clock(), action=ACTION, outcome="ok",
        principal=by, model=row.model, version=row.number, digest=row.digest, subject=told,
    )  # fmt: skip
    control.journal.append(encode(entry), entry).add_done_callback(_heard)
    _log.warning("%s:%d is in quarantine: %s", row.model, row.number, told)
    control.deployments.forget_plans()


def _running(control: Control, version: Version) -> list[str]:
    """Return the deployments that mean a version."""
    row, found = version.row, []
    aliases = control.registry.aliases(row.model)
    for deployment in control.deployments.all():
        model, _, label = (deployment.model or "").partition(":")
        number = label if label.isdigit() else str(aliases.get(label or PRODUCTION, ""))
        if (model, number) == (row.model, str(row.number)):
            found.append(deployment.name)
    return found


def _heard(written: "asyncio.Future[None]") -> None:
    """Say in the log what could not be said in the record."""
    if not written.cancelled() and (error := written.exception()):
        _log.error("a quarantine could not be recorded: %s", error)
