"""The limits of a home: what people write, checked and kept as desired state."""

import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

import msgspec

from freehold.errors import Invalid, Missing
from freehold.models.naming import check_name
from freehold.policy.quotas import MEASURES, MONEY, SCOPES, describe
from freehold.record.windows import WINDOWS
from freehold.store import limits
from freehold.store.database import Database
from freehold.store.snapshot import Limit

MOST = 10**15
Number = int | float
Window = Literal["minute", "day", "month", "total"]
Measure = Literal["requests", "tokens_in", "tokens_out", "tokens", "money", "concurrency"]
_BUDGET = re.compile(r"([a-z_]+)=(\d+(?:\.\d+)?)(?:/([a-z]+))?")


class LimitEntry(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A limit as it stands in a document.

    ``of`` is ``SCOPE:NAME``: a key's id, a principal, a team or a deployment. ``amount`` of money
    is in units of the currency; ``per`` is a window of the UTC calendar, or total.
    """

    of: str
    measure: Measure
    amount: Number
    per: Window = "total"


class Limits:
    """Reads and writes limits."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[Limit]:
        """Return every limit."""
        with self._database.reading() as connection:
            return limits.limits(connection)

    def by_subject(self) -> Mapping[str, tuple[Limit, ...]]:
        """Return what gateways need: limits by ``SCOPE:NAME``."""
        return by_subject(self.all())

    def put(self, wanted: Iterable[Limit], now: float, by: str) -> None:
        """Create limits, or change their amounts, all at once."""
        with self._database.transaction() as connection:
            for limit in wanted:
                limits.put_limit(connection, limit, now, by)

    def remove(self, unwanted: Iterable[Limit]) -> None:
        """Remove limits; ``Missing`` when one is not there, and then none is removed."""
        with self._database.transaction() as connection:
            for limit in unwanted:
                if not limits.remove_limit(connection, limit):
                    text = f"no limit {describe(limit)}: see freehold limit list"
                    raise Missing("missing.limit", text)

    def replace(self, wanted: Iterable[Limit], now: float, by: str) -> None:
        """Make these the only limits."""
        with self._database.transaction() as connection:
            replace(connection, wanted, now, by)


def replace(connection: Any, wanted: Iterable[Limit], now: float, by: str) -> None:
    """Make these the only limits, as part of a transaction."""
    kept = list(wanted)
    identities = {identity(limit) for limit in kept}
    for limit in limits.limits(connection):
        if identity(limit) not in identities:
            limits.remove_limit(connection, limit)
    for limit in kept:
        limits.put_limit(connection, limit, now, by)


def by_subject(found: Iterable[Limit]) -> Mapping[str, tuple[Limit, ...]]:
    """Group limits by ``SCOPE:NAME``."""
    groups: dict[str, tuple[Limit, ...]] = {}
    for limit in found:
        subject = f"{limit.scope}:{limit.name}"
        groups[subject] = (*groups.get(subject, ()), limit)
    return groups


def differing(before: Iterable[Limit], after: Iterable[Limit]) -> list[Limit]:
    """Return the limits that only one side has, whatever their amounts."""
    one = {identity(limit): limit for limit in before}
    other = {identity(limit): limit for limit in after}
    return [{**one, **other}[name] for name in one.keys() ^ other.keys()]


def identity(limit: Limit) -> tuple[str, str, str, str]:
    """Return what tells a limit from others."""
    return limit.scope, limit.name, limit.measure, limit.window


def read_entry(entry: LimitEntry) -> Limit:
    """Return the limit an entry stands for, or raise ``Invalid``."""
    scope, name = read_subject(entry.of)
    per = entry.per
    if entry.measure == "concurrency" and per != "total":
        raise Invalid("invalid.limit", "concurrency has no window: leave it out", param="per")
    amount = Decimal(str(entry.amount)) * (MONEY if entry.measure == "money" else 1)
    if not amount.is_finite() or not 0 <= amount <= MOST or amount != int(amount):
        unit = "up to six decimals" if entry.measure == "money" else "a whole number"
        text = f"{entry.of} {entry.measure}: the amount must be {unit}, from 0 to {MOST:.0e}"
        raise Invalid("invalid.limit", text, param="amount")
    return Limit(scope=scope, name=name, measure=entry.measure, window=per, amount=int(amount))


def write_entry(limit: Limit) -> LimitEntry:
    """Return a limit as documents have it; ``read_entry`` gives the same back."""
    amount: Number = limit.amount
    if limit.measure == "money":
        amount = float(Decimal(limit.amount) / MONEY)
    fields = {"measure": limit.measure, "amount": amount, "per": limit.window}
    return msgspec.convert({"of": f"{limit.scope}:{limit.name}", **fields}, LimitEntry)


def read_subject(text: str) -> tuple[str, str]:
    """Return (scope, name) of ``SCOPE:NAME``."""
    scope, _, name = text.partition(":")
    if scope not in SCOPES or not name:
        known = ", ".join(f"{scope}:NAME" for scope in SCOPES)
        text = f"{text!r:.80} is nobody to limit: write one of {known}"
        raise Invalid("invalid.limit", text, param="of")
    if scope != "principal":
        check_name(name)
    return scope, name


def read_budget(text: str) -> tuple[str, str, str]:
    """Return (measure, amount, window) of a budget as ``tokens=1000/day`` or ``money=25.5``."""
    found = _BUDGET.fullmatch(text)
    if found is None or found[1] not in MEASURES or (found[3] or "total") not in WINDOWS:
        raise Invalid(
            "invalid.limit",
            f"{text!r:.80} is no limit: write MEASURE=AMOUNT or MEASURE=AMOUNT/WINDOW, with a "
            f"measure of {', '.join(MEASURES)} and a window of {', '.join(WINDOWS[:3])}",
            param="budget",
        )
    return found[1], found[2], found[3] or "total"


def read_budgets(of: str, texts: Sequence[str]) -> list[Limit]:
    """Return the limits that budgets as people write them come to for a subject."""
    found = []
    for text in texts:
        measure, amount, window = read_budget(text)
        fields = {"of": of, "measure": measure, "amount": float(amount), "per": window}
        found.append(read_entry(msgspec.convert(fields, LimitEntry)))
    return found
