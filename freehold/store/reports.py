"""Rows of reports: what was measured of a version, one JSON document of each kind."""

from sqlalchemy import Connection, select
from sqlalchemy.dialects.sqlite import insert as upsert

from freehold.store.tables import REPORTS


def keep(
    connection: Connection, model: str, number: int, kind: str, document: str, now: float
) -> None:
    """Write a report over the one of its kind, if there is one."""
    row = {"document": document, "created": now}
    connection.execute(
        upsert(REPORTS)
        .values(model=model, number=number, kind=kind, **row)
        .on_conflict_do_update(index_elements=["model", "number", "kind"], set_=row)
    )


def find(connection: Connection, model: str, number: int, kind: str) -> str | None:
    """Return a version's report of a kind."""
    columns = REPORTS.c
    found: str | None = connection.execute(
        select(columns.document).where(
            columns.model == model, columns.number == number, columns.kind == kind
        )
    ).scalar()
    return found
