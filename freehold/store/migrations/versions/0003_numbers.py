"""The highest version number that each model ever had: numbers are never used again."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "numbers",
        sa.Column("model", sa.String, primary_key=True),
        sa.Column("highest", sa.Integer, nullable=False),
    )
    op.execute(
        "INSERT INTO numbers (model, highest) SELECT model, max(number) FROM versions GROUP BY model"
    )
