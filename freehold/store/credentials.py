"""Rows of API keys. Only the keyed hash of a key is ever stored."""

import msgspec
from sqlalchemy import Connection, insert, select, update

from freehold.store.tables import KEYS


class KeyRow(msgspec.Struct, frozen=True, kw_only=True):
    """One key. ``digest`` is the keyed hash in hex; times are epoch seconds.

    ``created_by`` is the principal that made it; None where that is not known, and for the first.
    """

    id: str
    principal: str
    role: str
    digest: str
    created: float
    expires: float | None = None
    revoked: float | None = None
    team: str | None = None
    created_by: str | None = None


def keys(connection: Connection) -> list[KeyRow]:
    """Return all keys, revoked and expired ones included, oldest first."""
    rows = connection.execute(select(KEYS).order_by(KEYS.c.created, KEYS.c.id))
    return [KeyRow(**row) for row in rows.mappings()]


def add_key(connection: Connection, row: KeyRow) -> None:
    """Insert a key."""
    connection.execute(insert(KEYS).values(**msgspec.structs.asdict(row)))


def revoke_key(connection: Connection, key_id: str, now: float) -> bool:
    """Mark a key revoked; False when there is no live key of that id."""
    statement = (
        update(KEYS).where(KEYS.c.id == key_id, KEYS.c.revoked.is_(None)).values(revoked=now)
    )
    return connection.execute(statement).rowcount > 0
