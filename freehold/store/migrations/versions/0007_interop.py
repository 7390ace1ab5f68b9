"""Model cards, signatures, and the repositories of our own registry."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

VERSION = ["versions.model", "versions.number"]


def upgrade() -> None:
    op.create_table(
        "cards",
        sa.Column("model", sa.String, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("model", "number"),
        sa.ForeignKeyConstraint(["model", "number"], VERSION, ondelete="CASCADE"),
    )
    op.create_table(
        "signatures",
        sa.Column("model", sa.String, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("id", sa.String, nullable=False),
        sa.Column("bundle", sa.LargeBinary, nullable=False),
        sa.Column("created", sa.Float, nullable=False),
        sa.Column("created_by", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("model", "number", "id"),
        sa.ForeignKeyConstraint(["model", "number"], VERSION, ondelete="CASCADE"),
    )
    op.create_table(
        "repository_manifests",
        sa.Column("repository", sa.String, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("media_type", sa.String, nullable=False),
        sa.Column("artifact_type", sa.String),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("subject", sa.String),
        sa.Column("number", sa.Integer),
        sa.Column("created", sa.Float, nullable=False),
        sa.Column("created_by", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("repository", "digest"),
    )
    op.create_index(
        "repository_manifests_subject", "repository_manifests", ["repository", "subject"]
    )
    op.create_table(
        "repository_tags",
        sa.Column("repository", sa.String, nullable=False),
        sa.Column("tag", sa.String, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("repository", "tag"),
        sa.ForeignKeyConstraint(
            ["repository", "digest"],
            ["repository_manifests.repository", "repository_manifests.digest"],
            ondelete="CASCADE",
        ),
    )
    op.create_table(
        "repository_blobs",
        sa.Column("repository", sa.String, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("created", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("repository", "digest"),
    )
    op.create_table(
        "repository_grants",
        sa.Column("repository", sa.String, nullable=False),
        sa.Column("subject", sa.String, nullable=False),
        sa.Column("access", sa.String, nullable=False),
        sa.Column("created", sa.Float, nullable=False),
        sa.Column("created_by", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("repository", "subject"),
    )
