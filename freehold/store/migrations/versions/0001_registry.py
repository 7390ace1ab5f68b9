"""The first schema: registry, deployments, keys, record."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "models",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("created", sa.Float, nullable=False),
    )
    op.create_table(
        "versions",
        sa.Column("model", sa.String, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("bytes", sa.Integer, nullable=False),
        sa.Column("format", sa.String, nullable=False),
        sa.Column("manifest", sa.Text, nullable=False),
        sa.Column("licence", sa.String),
        sa.Column("notice", sa.Text),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("resolved", sa.String, nullable=False),
        sa.Column("created", sa.Float, nullable=False),
        sa.Column("created_by", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("model", "number"),
        sa.ForeignKeyConstraint(["model"], ["models.name"], ondelete="CASCADE"),
        sa.UniqueConstraint("model", "digest"),
    )
    of_version: dict[str, Any] = {"columns": ["model", "number"], "refcolumns": ["versions.model", "versions.number"]}
    op.create_table(
        "artifacts",
        sa.Column("model", sa.String, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("bytes", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("model", "number", "name"),
        sa.ForeignKeyConstraint(**of_version, ondelete="CASCADE"),
    )
    op.create_index("artifacts_digest", "artifacts", ["digest"])
    op.create_table(
        "dependencies",
        sa.Column("model", sa.String, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("target", sa.String, nullable=False),
        sa.Column("target_number", sa.Integer),
        sa.Column("digest", sa.String),
        sa.PrimaryKeyConstraint("model", "number", "kind", "target"),
        sa.ForeignKeyConstraint(**of_version, ondelete="CASCADE"),
    )
    op.create_table(
        "launch_settings",
        sa.Column("model", sa.String, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("created", sa.Float, nullable=False),
        sa.Column("created_by", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("model", "number", "revision"),
        sa.ForeignKeyConstraint(**of_version, ondelete="CASCADE"),
    )
    op.create_table(
        "alias_moves",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("alias", sa.String, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("moved", sa.Float, nullable=False),
        sa.Column("moved_by", sa.String, nullable=False),
        sa.ForeignKeyConstraint(**of_version, ondelete="CASCADE"),
    )
    op.create_index("alias_moves_current", "alias_moves", ["model", "alias", "id"])
    op.create_table(
        "deployments",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("updated", sa.Float, nullable=False),
        sa.Column("updated_by", sa.String, nullable=False),
    )
    op.create_table(
        "keys",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("principal", sa.String, nullable=False),
        sa.Column("role", sa.String, nullable=False),
        sa.Column("digest", sa.String, nullable=False, unique=True),
        sa.Column("created", sa.Float, nullable=False),
        sa.Column("expires", sa.Float),
        sa.Column("revoked", sa.Float),
    )
    op.create_table(
        "journals",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("offset", sa.Integer, nullable=False),
    )
    op.create_table(
        "records",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("action", sa.String, nullable=False),
        sa.Column("principal", sa.String),
        sa.Column("deployment", sa.String),
        sa.Column("outcome", sa.String, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.create_index("records_at", "records", ["at"])
    op.create_index("records_principal", "records", ["principal", "at"])
    op.create_table(
        "usage",
        sa.Column("day", sa.String, nullable=False),
        sa.Column("principal", sa.String, nullable=False),
        sa.Column("deployment", sa.String, nullable=False),
        sa.Column("requests", sa.Integer, nullable=False),
        sa.Column("failed", sa.Integer, nullable=False),
        sa.Column("tokens_in", sa.Integer, nullable=False),
        sa.Column("tokens_out", sa.Integer, nullable=False),
        sa.Column("milliseconds", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("day", "principal", "deployment"),
    )
    # A version is what somebody tested and signed off: the database itself refuses to change one.
    for table in ("versions", "artifacts", "launch_settings"):
        op.execute(
            f"CREATE TRIGGER {table}_immutable BEFORE UPDATE ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} are immutable'); END"
        )
