"""The tables, as SQLAlchemy Core sees them. Times are UTC epoch seconds, JSON is text.

A change here needs a migration in ``migrations/versions``; a test compares the two.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)

METADATA = MetaData()

MODELS = Table(
    "models",
    METADATA,
    Column("name", String, primary_key=True),
    Column("created", Float, nullable=False),
)

VERSIONS = Table(
    "versions",
    METADATA,
    Column("model", String, nullable=False),
    Column("number", Integer, nullable=False),
    Column("digest", String, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("format", String, nullable=False),
    Column("manifest", Text, nullable=False),
    Column("licence", String),
    Column("notice", Text),
    Column("source", String, nullable=False),
    Column("resolved", String, nullable=False),
    Column("created", Float, nullable=False),
    Column("created_by", String, nullable=False),
    PrimaryKeyConstraint("model", "number"),
    ForeignKeyConstraint(["model"], ["models.name"], ondelete="CASCADE"),
    UniqueConstraint("model", "digest"),
)

NUMBERS = Table(
    "numbers",
    METADATA,
    Column("model", String, primary_key=True),
    Column("highest", Integer, nullable=False),
)

ARTIFACTS = Table(
    "artifacts",
    METADATA,
    Column("model", String, nullable=False),
    Column("number", Integer, nullable=False),
    Column("name", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("bytes", Integer, nullable=False),
    PrimaryKeyConstraint("model", "number", "name"),
    ForeignKeyConstraint(
        ["model", "number"], ["versions.model", "versions.number"], ondelete="CASCADE"
    ),
    Index("artifacts_digest", "digest"),
)

CHECKS = Table(
    "checks",
    METADATA,
    Column("digest", String, primary_key=True),
    Column("at", Float, nullable=False),
    Column("damage", Text),
)

DEPENDENCIES = Table(
    "dependencies",
    METADATA,
    Column("model", String, nullable=False),
    Column("number", Integer, nullable=False),
    Column("kind", String, nullable=False),
    Column("target", String, nullable=False),
    Column("target_number", Integer),
    Column("digest", String),
    PrimaryKeyConstraint("model", "number", "kind", "target"),
    ForeignKeyConstraint(
        ["model", "number"], ["versions.model", "versions.number"], ondelete="CASCADE"
    ),
)

LAUNCH_SETTINGS = Table(
    "launch_settings",
    METADATA,
    Column("model", String, nullable=False),
    Column("number", Integer, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("document", Text, nullable=False),
    Column("created", Float, nullable=False),
    Column("created_by", String, nullable=False),
    PrimaryKeyConstraint("model", "number", "revision"),
    ForeignKeyConstraint(
        ["model", "number"], ["versions.model", "versions.number"], ondelete="CASCADE"
    ),
)

ALIAS_MOVES = Table(
    "alias_moves",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("model", String, nullable=False),
    Column("alias", String, nullable=False),
    Column("number", Integer, nullable=False),
    Column("moved", Float, nullable=False),
    Column("moved_by", String, nullable=False),
    ForeignKeyConstraint(
        ["model", "number"], ["versions.model", "versions.number"], ondelete="CASCADE"
    ),
    Index("alias_moves_current", "model", "alias", "id"),
)

QUARANTINE = Table(
    "quarantine",
    METADATA,
    Column("model", String, nullable=False),
    Column("number", Integer, nullable=False),
    Column("findings", Text, nullable=False),
    Column("since", Float, nullable=False),
    PrimaryKeyConstraint("model", "number"),
    ForeignKeyConstraint(
        ["model", "number"], ["versions.model", "versions.number"], ondelete="CASCADE"
    ),
)

RELEASES = Table(
    "releases",
    METADATA,
    Column("model", String, nullable=False),
    Column("number", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("asked", Float, nullable=False),
    Column("asked_by", String, nullable=False),
    Column("confirmed", Float),
    Column("confirmed_by", String),
    PrimaryKeyConstraint("model", "number"),
    ForeignKeyConstraint(
        ["model", "number"], ["versions.model", "versions.number"], ondelete="CASCADE"
    ),
)

ACCEPTANCES = Table(
    "acceptances",
    METADATA,
    Column("model", String, nullable=False),
    Column("licence", String, nullable=False),
    Column("accepted", Float, nullable=False),
    Column("accepted_by", String, nullable=False),
    PrimaryKeyConstraint("model", "licence"),
    ForeignKeyConstraint(["model"], ["models.name"], ondelete="CASCADE"),
)

REPORTS = Table(
    "reports",
    METADATA,
    Column("model", String, nullable=False),
    Column("number", Integer, nullable=False),
    Column("kind", String, nullable=False),
    Column("document", Text, nullable=False),
    Column("created", Float, nullable=False),
    PrimaryKeyConstraint("model", "number", "kind"),
    ForeignKeyConstraint(
        ["model", "number"], ["versions.model", "versions.number"], ondelete="CASCADE"
    ),
)

DEPLOYMENTS = Table(
    "deployments",
    METADATA,
    Column("name", String, primary_key=True),
    Column("document", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("updated", Float, nullable=False),
    Column("updated_by", String, nullable=False),
)

KEYS = Table(
    "keys",
    METADATA,
    Column("id", String, primary_key=True),
    Column("principal", String, nullable=False),
    Column("role", String, nullable=False),
    Column("digest", String, nullable=False, unique=True),
    Column("created", Float, nullable=False),
    Column("expires", Float),
    Column("revoked", Float),
    Column("team", String),
    Column("created_by", String),
)

LIMITS = Table(
    "limits",
    METADATA,
    Column("scope", String, nullable=False),
    Column("name", String, nullable=False),
    Column("measure", String, nullable=False),
    Column("window", String, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("updated", Float, nullable=False),
    Column("updated_by", String, nullable=False),
    PrimaryKeyConstraint("scope", "name", "measure", "window"),
)

SPENDING = Table(
    "spending",
    METADATA,
    Column("scope", String, nullable=False),
    Column("name", String, nullable=False),
    Column("period", String, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("tokens_in", BigInteger, nullable=False),
    Column("tokens_out", BigInteger, nullable=False),
    Column("money", BigInteger, nullable=False),
    PrimaryKeyConstraint("scope", "name", "period"),
)

JOURNALS = Table(
    "journals",
    METADATA,
    Column("name", String, primary_key=True),
    Column("offset", Integer, nullable=False),
)

RECORDS = Table(
    "records",
    METADATA,
    Column("id", String, primary_key=True),
    Column("at", Float, nullable=False),
    Column("action", String, nullable=False),
    Column("principal", String),
    Column("deployment", String),
    Column("outcome", String, nullable=False),
    Column("document", Text, nullable=False),
    Index("records_at", "at"),
    Index("records_principal", "principal", "at"),
)

USAGE = Table(
    "usage",
    METADATA,
    Column("day", String, nullable=False),
    Column("principal", String, nullable=False),
    Column("deployment", String, nullable=False),
    Column("requests", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("tokens_in", Integer, nullable=False),
    Column("tokens_out", Integer, nullable=False),
    Column("milliseconds", Float, nullable=False),
    PrimaryKeyConstraint("day", "principal", "deployment"),
)

CARDS = Table(
    "cards",
    METADATA,
    Column("model", String, nullable=False),
    Column("number", Integer, nullable=False),
    Column("text", Text, nullable=False),
    PrimaryKeyConstraint("model", "number"),
    ForeignKeyConstraint(
        ["model", "number"], ["versions.model", "versions.number"], ondelete="CASCADE"
    ),
)

SIGNATURES = Table(
    "signatures",
    METADATA,
    Column("model", String, nullable=False),
    Column("number", Integer, nullable=False),
    Column("id", String, nullable=False),
    Column("bundle", LargeBinary, nullable=False),
    Column("created", Float, nullable=False),
    Column("created_by", String, nullable=False),
    PrimaryKeyConstraint("model", "number", "id"),
    ForeignKeyConstraint(
        ["model", "number"], ["versions.model", "versions.number"], ondelete="CASCADE"
    ),
)

REPOSITORY_MANIFESTS = Table(
    "repository_manifests",
    METADATA,
    Column("repository", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("media_type", String, nullable=False),
    Column("artifact_type", String),
    Column("content", LargeBinary, nullable=False),
    Column("subject", String),
    Column("number", Integer),
    Column("created", Float, nullable=False),
    Column("created_by", String, nullable=False),
    PrimaryKeyConstraint("repository", "digest"),
    Index("repository_manifests_subject", "repository", "subject"),
)

REPOSITORY_TAGS = Table(
    "repository_tags",
    METADATA,
    Column("repository", String, nullable=False),
    Column("tag", String, nullable=False),
    Column("digest", String, nullable=False),
    PrimaryKeyConstraint("repository", "tag"),
    ForeignKeyConstraint(
        ["repository", "digest"],
        ["repository_manifests.repository", "repository_manifests.digest"],
        ondelete="CASCADE",
    ),
)

REPOSITORY_BLOBS = Table(
    "repository_blobs",
    METADATA,
    Column("repository", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("created", Float, nullable=False),
    PrimaryKeyConstraint("repository", "digest"),
)

REPOSITORY_GRANTS = Table(
    "repository_grants",
    METADATA,
    Column("repository", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("access", String, nullable=False),
    Column("created", Float, nullable=False),
    Column("created_by", String, nullable=False),
    PrimaryKeyConstraint("repository", "subject"),
)
