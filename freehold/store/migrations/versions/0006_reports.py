"""What was measured of a version: one document of each kind."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "reports",
        sa.Column("model", sa.String, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("created", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("model", "number", "kind"),
        sa.ForeignKeyConstraint(
            ["model", "number"], ["versions.model", "versions.number"], ondelete="CASCADE"
        ),
    )
