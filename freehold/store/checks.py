"""Rows of checks: when each blob was last read whole, and what was found."""

from collections.abc import Iterable

import msgspec
from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.sqlite import insert as upsert

from freehold.store.tables import ARTIFACTS, CHECKS


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One blob. ``at`` in epoch seconds; ``damage`` says what is wrong, None when nothing is."""

    digest: str
    at: float
    damage: str | None = None


def keep_check(connection: Connection, check: Check) -> None:
    """Remember the newest check of a blob, in place of the one before."""
    values = {"at": check.at, "damage": check.damage}
    connection.execute(
        upsert(CHECKS)
        .values(digest=check.digest, **values)
        .on_conflict_do_update(index_elements=["digest"], set_=values)
    )


def checks(connection: Connection, digests: Iterable[str] | None = None) -> dict[str, Check]:
    """Return the newest check of each blob that was ever checked, or of these."""
    query = select(CHECKS)
    if digests is not None:
        query = query.where(CHECKS.c.digest.in_(list(digests)))
    return {row["digest"]: Check(**row) for row in connection.execute(query).mappings()}


def forget_checks(connection: Connection) -> None:
    """Delete the checks of blobs that no version refers to."""
    connection.execute(delete(CHECKS).where(CHECKS.c.digest.not_in(select(ARTIFACTS.c.digest))))
