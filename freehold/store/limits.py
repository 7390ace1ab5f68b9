"""Rows of limits: desired state, like deployments."""

import msgspec
from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.sqlite import insert

from freehold.store.snapshot import Limit
from freehold.store.tables import LIMITS

_IDENTITY = ("scope", "name", "measure", "window")


def limits(connection: Connection) -> list[Limit]:
    """Return every limit, in a fixed order."""
    columns = [LIMITS.c[name] for name in (*_IDENTITY, "amount")]
    rows = connection.execute(select(*columns).order_by(*columns[:4]))
    return [Limit(**row) for row in rows.mappings()]


def put_limit(connection: Connection, limit: Limit, now: float, by: str) -> None:
    """Create a limit or change its amount."""
    statement = insert(LIMITS).values(**msgspec.structs.asdict(limit), updated=now, updated_by=by)
    changed = {name: statement.excluded[name] for name in ("amount", "updated", "updated_by")}
    connection.execute(
        statement.on_conflict_do_update(index_elements=list(_IDENTITY), set_=changed)
    )


def remove_limit(connection: Connection, limit: Limit) -> bool:
    """Delete a limit, whatever its amount; say whether there was one."""
    where = [LIMITS.c[name] == getattr(limit, name) for name in _IDENTITY]
    return connection.execute(delete(LIMITS).where(*where)).rowcount > 0
