"""The record of requests and acts, and the usage that adds up from it."""

from typing import Any

import msgspec

from freehold.control.control import Control
from freehold.errors import Invalid
from freehold.gateway.admin.ask import Ask
from freehold.record.entry import OUTCOMES
from freehold.record.ledger import records, usage_since
from freehold.store.ledger import UsageRow


class AuditView(msgspec.Struct, frozen=True, kw_only=True):
    """Records, newest first; ``before`` of the next page is ``next``, null at the end."""

    records: list[dict[str, Any]]
    next: float | None


class UsageView(msgspec.Struct, frozen=True, kw_only=True):
    """Usage by UTC day, principal and deployment."""

    usage: list[UsageRow]


async def audit(ask: Ask, control: Control) -> AuditView:
    """Return records of requests and acts."""
    await control.take_in_records()
    if ask.query.get("outcome") not in (None, *OUTCOMES):
        text = f"outcome is one of {', '.join(OUTCOMES)}"
        raise Invalid("invalid.request", text, param="outcome")
    limit = int(ask.number("limit", 100, 1, 1000))
    before = ask.number("before", 0, 0, 1e12) if "before" in ask.query else None
    found = records(
        control.database,
        limit=limit,
        before=before,
        principal=ask.query.get("principal"),
        deployment=ask.query.get("deployment"),
        request=ask.query.get("id"),
        action=ask.query.get("action"),
        outcome=ask.query.get("outcome"),
    )
    return AuditView(records=found, next=found[-1]["at"] if len(found) == limit else None)


async def usage(ask: Ask, control: Control) -> UsageView:
    """Return who used what."""
    await control.take_in_records()
    since = ask.query.get("since")
    if since is not None and len(since) != len("2026-01-31"):
        raise Invalid("invalid.request", "since is a UTC day, as 2026-01-31", param="since")
    return UsageView(usage=usage_since(control.database, since))
