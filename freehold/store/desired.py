"""Rows of the desired deployments."""

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from freehold.store.tables import DEPLOYMENTS


class DeploymentRow(msgspec.Struct, frozen=True, kw_only=True):
    """One desired deployment; ``document`` is its JSON text."""

    name: str
    document: str
    revision: int
    updated: float
    updated_by: str


def deployments(connection: Connection) -> list[DeploymentRow]:
    """Return every desired deployment, by name."""
    rows = connection.execute(select(DEPLOYMENTS).order_by(DEPLOYMENTS.c.name))
    return [DeploymentRow(**row) for row in rows.mappings()]


def put_deployment(
    connection: Connection, name: str, document: str, now: float, by: str
) -> DeploymentRow:
    """Create a deployment or replace what it should be."""
    present = connection.execute(
        select(DEPLOYMENTS.c.revision).where(DEPLOYMENTS.c.name == name)
    ).scalar()
    row = DeploymentRow(
        name=name, document=document, revision=(present or 0) + 1, updated=now, updated_by=by
    )
    values = msgspec.structs.asdict(row)
    if present is None:
        connection.execute(insert(DEPLOYMENTS).values(**values))
    else:
        connection.execute(update(DEPLOYMENTS).where(DEPLOYMENTS.c.name == name).values(**values))
    return row


def remove_deployment(connection: Connection, name: str) -> bool:
    """Delete a deployment; say whether there was one."""
    return connection.execute(delete(DEPLOYMENTS).where(DEPLOYMENTS.c.name == name)).rowcount > 0
