"""When each blob was last read whole, and what was found."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "checks",
        sa.Column("digest", sa.String, primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("damage", sa.Text),
    )
