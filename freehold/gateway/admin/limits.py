"""Limits: set, listed with what is used of them, removed; in force when the answer comes."""

import asyncio
import math
from collections.abc import Sequence

import msgspec

from freehold.control.control import Control
from freehold.control.limits import LimitEntry, read_entry, read_subject, write_entry
from freehold.control.subjects import check_kind
from freehold.errors import Missing
from freehold.gateway.admin.ask import Ask, Body
from freehold.policy.quotas import MONEY
from freehold.record.windows import ends
from freehold.store.snapshot import Limit

Number = int | float


class LimitView(msgspec.Struct, frozen=True, kw_only=True):
    """A limit in its present window; ``resets`` is its end in epoch seconds, null for none.

    ``reserved`` is what running requests may use at most. Money in units of the currency.
    """

    of: str
    measure: str
    per: str
    amount: Number
    spent: Number
    reserved: Number
    resets: float | None


class LimitsBody(Body, frozen=True):
    """Limits to set; others stay."""

    limits: list[LimitEntry]


async def list_limits(ask: Ask, control: Control) -> list[LimitView]:
    """List limits and what is used of them."""
    await control.take_in_records()
    of = ask.query.get("of")
    found = [limit for limit in control.limits.all() if of in (None, _of(limit))]
    return await _views(found, control)


async def set_limits(ask: Ask, control: Control) -> list[LimitView]:
    """Set limits in every gateway."""
    entries = ask.read(LimitsBody).limits
    for entry in entries:
        _check_kind(entry.of, control)
    wanted = [read_entry(entry) for entry in entries]
    for limit in wanted:
        _check_subject(limit, control)
    control.limits.put(wanted, control.clock(), ask.principal.name)
    await control.limits_changed()
    return await _views(wanted, control)


async def remove_limits(ask: Ask, control: Control) -> list[LimitView]:
    """Remove the limits of a subject, or one of them."""
    of = ask.query.get("of", "")
    _check_kind(of, control)
    scope, name = read_subject(of)
    asked = (ask.query.get("measure"), ask.query.get("per"))
    unwanted = [
        limit
        for limit in control.limits.all()
        if (limit.scope, limit.name) == (scope, name)
        and asked[0] in (None, limit.measure)
        and asked[1] in (None, limit.window)
    ]
    if not unwanted:
        raise Missing("missing.limit", f"no such limit of {scope}:{name}: see freehold limit list")
    shown = await _views(unwanted, control)
    control.limits.remove(unwanted)
    await control.limits_changed()
    return shown


async def _views(limits: Sequence[Limit], control: Control) -> list[LimitView]:
    """Return limits with what is used of them; who counts meanwhile is waited for elsewhere."""
    return await asyncio.to_thread(lambda: [view(limit, control) for limit in limits])


def view(limit: Limit, control: Control) -> LimitView:
    """Return a limit with what is used of it."""
    spent, reserved = control.spending.view(limit)
    resets = ends(limit.window, control.clock())
    return LimitView(
        of=_of(limit),
        measure=limit.measure,
        per=limit.window,
        amount=write_entry(limit).amount,
        spent=_units(limit, spent),
        reserved=_units(limit, reserved),
        resets=resets if math.isfinite(resets) else None,
    )


def _check_kind(of: str, control: Control) -> None:
    if ":" not in of:
        names = [deployment.name for deployment in control.deployments.all()]
        check_kind(of, control.keys.list(control.clock()), names)


def _check_subject(limit: Limit, control: Control) -> None:
    if limit.scope == "key":
        live = {key.id for key in control.keys.list(control.clock()) if key.state == "live"}
        if limit.name not in live:
            text = f"no live key {limit.name!r:.40}: see freehold key list"
            raise Missing("missing.key", text, param="of")
    names = {deployment.name for deployment in control.deployments.all()}
    if limit.scope == "deployment" and limit.name not in names:
        text = f"no deployment {limit.name!r:.80}: see freehold status"
        raise Missing("missing.deployment", text, param="of")


def _of(limit: Limit) -> str:
    return f"{limit.scope}:{limit.name}"


def _units(limit: Limit, amount: int) -> Number:
    return amount / MONEY if limit.measure == "money" else amount
