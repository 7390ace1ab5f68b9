"""Rows of the request record and of usage, filled from the journals exactly once."""

from collections.abc import Iterable

import msgspec
from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.sqlite import insert

from freehold.store.spending import SpendingRow, add_spending
from freehold.store.tables import JOURNALS, RECORDS, USAGE


class RecordRow(msgspec.Struct, frozen=True, kw_only=True):
    """One record, with the columns that people search by; ``document`` is the whole of it."""

    id: str
    at: float
    action: str
    principal: str | None
    deployment: str | None
    outcome: str
    document: str


class UsageRow(msgspec.Struct, frozen=True, kw_only=True):
    """What one principal used of one deployment on one UTC day (``YYYY-MM-DD``)."""

    day: str
    principal: str
    deployment: str
    requests: int
    failed: int
    tokens_in: int
    tokens_out: int
    milliseconds: float


def journal_offset(connection: Connection, name: str) -> int:
    """Return how many bytes of a journal are in the tables already."""
    found = connection.execute(select(JOURNALS.c.offset).where(JOURNALS.c.name == name)).scalar()
    return found or 0


def take_in(
    connection: Connection,
    name: str,
    offset: int,
    records: Iterable[RecordRow],
    usage: Iterable[UsageRow],
    spending: Iterable[SpendingRow] = (),
) -> None:
    """Add records, usage and spending and move the journal's offset, in one transaction."""
    add_spending(connection, spending)
    if rows := [msgspec.structs.asdict(record) for record in records]:
        connection.execute(insert(RECORDS).on_conflict_do_nothing(), rows)
    if rows := [msgspec.structs.asdict(row) for row in usage]:
        statement = insert(USAGE)
        grown = {
            column: USAGE.c[column] + statement.excluded[column]
            for column in ("requests", "failed", "tokens_in", "tokens_out", "milliseconds")
        }
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["day", "principal", "deployment"], set_=grown
            ),
            rows,
        )
    statement = insert(JOURNALS).values(name=name, offset=offset)
    connection.execute(
        statement.on_conflict_do_update(index_elements=["name"], set_={"offset": offset})
    )


def forget_records(connection: Connection, before: float, most: int) -> int:
    """Delete the oldest records from before a moment, at most so many; return how many."""
    old = select(RECORDS.c.id).where(RECORDS.c.at < before).order_by(RECORDS.c.at).limit(most)
    return connection.execute(delete(RECORDS).where(RECORDS.c.id.in_(old))).rowcount


def forget_journal(connection: Connection, name: str) -> None:
    """Delete what is known of a journal that is no more."""
    connection.execute(delete(JOURNALS).where(JOURNALS.c.name == name))


def recent_records(
    connection: Connection,
    *,
    limit: int,
    before: float | None = None,
    principal: str | None = None,
    deployment: str | None = None,
    request: str | None = None,
    action: str | None = None,
    outcome: str | None = None,
) -> list[str]:
    """Return the documents of matching records, newest first."""
    statement = select(RECORDS.c.document).order_by(RECORDS.c.at.desc(), RECORDS.c.id).limit(limit)
    if before is not None:
        statement = statement.where(RECORDS.c.at < before)
    if principal is not None:
        statement = statement.where(RECORDS.c.principal == principal)
    if deployment is not None:
        statement = statement.where(RECORDS.c.deployment == deployment)
    if request is not None:
        statement = statement.where(RECORDS.c.id == request)
    if action is not None:
        statement = statement.where(RECORDS.c.action == action)
    if outcome is not None:
        statement = statement.where(RECORDS.c.outcome == outcome)
    return list(connection.execute(statement).scalars())


def usage(connection: Connection, *, since: str | None = None) -> list[UsageRow]:
    """Return usage by day, principal and deployment, newest day first."""
    statement = select(USAGE).order_by(USAGE.c.day.desc(), USAGE.c.principal, USAGE.c.deployment)
    if since is not None:
        statement = statement.where(USAGE.c.day >= since)
    return [UsageRow(**row) for row in connection.execute(statement).mappings()]
