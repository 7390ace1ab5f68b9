"""Versions in quarantine, the releases that two people give, and licences that somebody accepted."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "quarantine",
        sa.Column("model", sa.String, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("findings", sa.Text, nullable=False),
        sa.Column("since", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("model", "number"),
        sa.ForeignKeyConstraint(
            ["model", "number"], ["versions.model", "versions.number"], ondelete="CASCADE"
        ),
    )
    op.create_table(
        "releases",
        sa.Column("model", sa.String, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("asked", sa.Float, nullable=False),
        sa.Column("asked_by", sa.String, nullable=False),
        sa.Column("confirmed", sa.Float),
        sa.Column("confirmed_by", sa.String),
        sa.PrimaryKeyConstraint("model", "number"),
        sa.ForeignKeyConstraint(
            ["model", "number"], ["versions.model", "versions.number"], ondelete="CASCADE"
        ),
    )
    op.create_table(
        "acceptances",
        sa.Column("model", sa.String, nullable=False),
        sa.Column("licence", sa.String, nullable=False),
        sa.Column("accepted", sa.Float, nullable=False),
        sa.Column("accepted_by", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("model", "licence"),
        sa.ForeignKeyConstraint(["model"], ["models.name"], ondelete="CASCADE"),
    )
