"""Rows of what was spent, by subject and period: the durable truth behind the shared counters.

A period is a UTC minute (``2026-01-31T23:59``) or day (``2026-01-31``). Months and totals are sums
of days. Days are kept for ever, minutes as long as a limit may come back to them.
"""

from collections.abc import Iterable, Mapping

import msgspec
from sqlalchemy import Connection, delete, func, select
from sqlalchemy.dialects.sqlite import insert

from freehold.store.tables import JOURNALS, SPENDING

_DAY, _MINUTE = len("2026-01-31"), len("2026-01-31T23:59")
_AMOUNTS = ("requests", "tokens_in", "tokens_out", "money")


class SpendingRow(msgspec.Struct, frozen=True, kw_only=True):
    """What one subject spent in one period; money in micro-units."""

    scope: str
    name: str
    period: str
    requests: int
    tokens_in: int
    tokens_out: int
    money: int


def add_spending(connection: Connection, rows: Iterable[SpendingRow]) -> None:
    """Add to what is there."""
    values = [msgspec.structs.asdict(row) for row in rows]
    if not values:
        return
    statement = insert(SPENDING)
    grown = {name: SPENDING.c[name] + statement.excluded[name] for name in _AMOUNTS}
    connection.execute(
        statement.on_conflict_do_update(index_elements=["scope", "name", "period"], set_=grown),
        values,
    )


def spent(connection: Connection, scope: str, name: str, period: str) -> tuple[int, int, int, int]:
    """Return (requests, tokens in, tokens out, money) of a minute, a day, a month or, ``""``, all.

    A month is written ``2026-01``.
    """
    sums = [func.coalesce(func.sum(SPENDING.c[column]), 0) for column in _AMOUNTS]
    statement = select(*sums).where(SPENDING.c.scope == scope, SPENDING.c.name == name)
    if len(period) >= _DAY:
        statement = statement.where(SPENDING.c.period == period)
    else:
        statement = statement.where(
            func.length(SPENDING.c.period) == _DAY, SPENDING.c.period.startswith(period)
        )
    requests, tokens_in, tokens_out, money = connection.execute(statement).one()
    return requests, tokens_in, tokens_out, money


def newest_period(connection: Connection, scope: str, name: str, length: int) -> str:
    """Return the last period of a subject of so many characters, as of its start; ``""``: none."""
    statement = select(func.max(SPENDING.c.period)).where(
        SPENDING.c.scope == scope,
        SPENDING.c.name == name,
        func.length(SPENDING.c.period) == length,
    )
    return connection.execute(statement).scalar() or ""


def old_minutes(connection: Connection, before: str) -> list[tuple[str, str]]:
    """Return whose minutes (scope, name) there are from before a minute."""
    statement = (
        select(SPENDING.c.scope, SPENDING.c.name)
        .where(func.length(SPENDING.c.period) == _MINUTE, SPENDING.c.period < before)
        .distinct()
    )
    return [(scope, name) for scope, name in connection.execute(statement)]


def remove_minutes(connection: Connection, scope: str, name: str, before: str) -> int:
    """Delete what a subject spent by minute before a minute; return how many rows."""
    statement = delete(SPENDING).where(
        SPENDING.c.scope == scope,
        SPENDING.c.name == name,
        SPENDING.c.period < before,
        func.length(SPENDING.c.period) == _MINUTE,
    )
    return connection.execute(statement).rowcount


def journal_offsets(connection: Connection) -> Mapping[str, int]:
    """Return how many bytes of each journal are in the tables."""
    rows = connection.execute(select(JOURNALS.c.name, JOURNALS.c.offset))
    return {name: offset for name, offset in rows}  # noqa: C416 - rows are not tuples of two
