"""How jobs end, on record: who asked for what is known at once, what came of it only here."""

import logging
import re
import secrets
from contextvars import ContextVar

from freehold.control.control import Control
from freehold.control.jobs import Job
from freehold.errors import FreeholdError
from freehold.record.entry import Entry, encode

ASKING: ContextVar[Entry | None] = ContextVar("asking", default=None)
"""The record of the request that is being answered; a job's task inherits it."""
CANCELLED = "unavailable.cancelled"
LONGEST = 300
_USER = re.compile(r"//[^/@\s]*@")
_QUERY = re.compile(r"\?[^\s,]*")
_log = logging.getLogger("freehold.control")


def watch(control: Control) -> None:
    """Record the end of every job from now on, before anybody is told of it."""

    async def ended(job: Job) -> None:
        entry = outcome(job, ASKING.get(), control.clock())
        if entry.model is not None and entry.version is not None:
            _say_what_it_became(control, entry)
        try:
            await control.journal.append(encode(entry), entry)
        except FreeholdError as error:
            _log.error("the end of job %s could not be recorded: %s", job.id, error)

    control.jobs.ended = ended


def outcome(job: Job, asked: Entry | None, now: float) -> Entry:
    """Return the record of a job's end: of whoever asked for it, ``job:KIND`` when nobody did."""
    entry = Entry(id=f"ctl-{secrets.token_hex(12)}", at=now, action=f"job:{job.kind}")
    if asked is not None:
        entry.action, entry.client = asked.action, asked.client
        entry.principal, entry.role, entry.key = asked.principal, asked.role, asked.key
    entry.subject = f"{about(job)} ended"
    if job.error is None:
        entry.outcome = "ok"
    else:
        ours = job.error.code.startswith(("unavailable.", "broken."))
        entry.outcome, entry.error = "failed" if ours else "refused", job.error.code
        if job.error.code == CANCELLED:
            entry.outcome = "cancelled"
    found = job.result or {}
    if isinstance(found.get("model"), str) and isinstance(found.get("version"), int):
        entry.model, entry.version = str(found["model"]), int(str(found["version"]))
        entry.subject += f": {entry.model}:{entry.version}"
    return entry


def about(job: Job) -> str:
    """Return what a job does, as a record says it."""
    return f"{job.kind} {plain(job.subject)}, job {job.id}"


def plain(text: str) -> str:
    """Return a text of a person without what may be a secret in a URL, and not longer than fits."""
    return _QUERY.sub("", _USER.sub("//", text))[:LONGEST]


def _say_what_it_became(control: Control, entry: Entry) -> None:
    try:
        version = control.registry.version(str(entry.model), entry.version or 0)
    except FreeholdError:  # removed meanwhile
        return
    entry.digest = version.row.digest
    if version.quarantine is not None and version.quarantine.is_open:
        entry.subject = f"{entry.subject}, in quarantine"
