"""Rows of models, their immutable versions, aliases and launch settings."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.dialects.sqlite import insert as upsert

from freehold.store.tables import (
    ALIAS_MOVES,
    ARTIFACTS,
    DEPENDENCIES,
    LAUNCH_SETTINGS,
    MODELS,
    NUMBERS,
    VERSIONS,
)


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a version. ``digest`` is SHA-256 in hex."""

    name: str
    digest: str
    bytes: int


class Dependency(msgspec.Struct, frozen=True, kw_only=True):
    """What a version builds on. ``kind``: base, adapter, tokenizer, or parent (lineage)."""

    kind: str
    target: str
    target_number: int | None = None
    digest: str | None = None


class VersionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One immutable version. ``manifest`` is the JSON text of a ``models.manifest.Manifest``."""

    model: str
    number: int
    digest: str
    bytes: int
    format: str
    manifest: str
    licence: str | None
    notice: str | None
    source: str
    resolved: str
    created: float
    created_by: str


class AliasMove(msgspec.Struct, frozen=True, kw_only=True):
    """One move of an alias; the newest one is where it points now."""

    model: str
    alias: str
    number: int
    moved: float
    moved_by: str


class SettingsRow(msgspec.Struct, frozen=True, kw_only=True):
    """One revision of a version's launch settings, as JSON text."""

    revision: int
    document: str
    created: float
    created_by: str


def add_version(
    connection: Connection,
    row: VersionRow,
    artifacts: Sequence[Artifact],
    dependencies: Sequence[Dependency],
) -> None:
    """Insert a version and what belongs to it, and its model when that is new."""
    known = connection.execute(select(MODELS.c.name).where(MODELS.c.name == row.model)).first()
    if known is None:
        connection.execute(insert(MODELS).values(name=row.model, created=row.created))
    connection.execute(insert(VERSIONS).values(**msgspec.structs.asdict(row)))
    connection.execute(
        upsert(NUMBERS)
        .values(model=row.model, highest=row.number)
        .on_conflict_do_update(index_elements=["model"], set_={"highest": row.number})
    )
    of = {"model": row.model, "number": row.number}
    for artifact in artifacts:
        connection.execute(insert(ARTIFACTS).values(**of, **msgspec.structs.asdict(artifact)))
    for dependency in dependencies:
        connection.execute(insert(DEPENDENCIES).values(**of, **msgspec.structs.asdict(dependency)))


def next_number(connection: Connection, model: str) -> int:
    """Return the number after the highest that a model of this name ever had."""
    highest = connection.execute(select(NUMBERS.c.highest).where(NUMBERS.c.model == model)).scalar()
    return (highest or 0) + 1


def model_names(connection: Connection) -> list[str]:
    """Return all model names, sorted."""
    return list(connection.execute(select(MODELS.c.name).order_by(MODELS.c.name)).scalars())


def versions_of(connection: Connection, model: str) -> list[VersionRow]:
    """Return the versions of a model, oldest first."""
    rows = connection.execute(
        select(VERSIONS).where(VERSIONS.c.model == model).order_by(VERSIONS.c.number)
    )
    return [VersionRow(**row) for row in rows.mappings()]


def artifacts_of(connection: Connection, model: str, number: int) -> list[Artifact]:
    """Return the files of a version."""
    rows = connection.execute(
        select(ARTIFACTS.c.name, ARTIFACTS.c.digest, ARTIFACTS.c.bytes)
        .where(ARTIFACTS.c.model == model, ARTIFACTS.c.number == number)
        .order_by(ARTIFACTS.c.name)
    )
    return [Artifact(**row) for row in rows.mappings()]


def dependencies_of(connection: Connection, model: str, number: int) -> list[Dependency]:
    """Return what a version builds on."""
    columns = DEPENDENCIES.c
    rows = connection.execute(
        select(columns.kind, columns.target, columns.target_number, columns.digest)
        .where(columns.model == model, columns.number == number)
        .order_by(columns.kind, columns.target)
    )
    return [Dependency(**row) for row in rows.mappings()]


def remove_version(connection: Connection, model: str, number: int) -> None:
    """Delete a version, and its model when it was the last one."""
    connection.execute(
        delete(VERSIONS).where(VERSIONS.c.model == model, VERSIONS.c.number == number)
    )
    if not versions_of(connection, model):
        connection.execute(delete(MODELS).where(MODELS.c.name == model))


def dependents_of(connection: Connection, model: str, number: int | None) -> list[str]:
    """Return the versions, as ``NAME:NUMBER``, that were made for one, or for any, of a model's.

    Those are its adapters: of other bases, models only name what they came from.
    """
    columns = DEPENDENCIES.c
    rows = connection.execute(
        select(columns.model, columns.number)
        .where(columns.kind == "base", columns.target == model)
        .where(columns.target_number.is_not(None) if number is None
               else columns.target_number == number)
        .order_by(columns.model, columns.number)
    )  # fmt: skip
    return [f"{row.model}:{row.number}" for row in rows]


def is_used(connection: Connection, digest: str) -> bool:
    """Say whether any version still refers to a blob."""
    return (
        connection.execute(select(ARTIFACTS.c.name).where(ARTIFACTS.c.digest == digest)).first()
        is not None
    )


def used_artifacts(connection: Connection) -> list[Artifact]:
    """Return every file that some version refers to, each digest once."""
    columns = ARTIFACTS.c
    rows = connection.execute(select(columns.name, columns.digest, columns.bytes))
    return list({row["digest"]: Artifact(**row) for row in rows.mappings()}.values())


def holdings(connection: Connection) -> dict[str, dict[str, int]]:
    """Return what each principal has brought in and is still here: bytes by digest."""
    rows = connection.execute(
        select(VERSIONS.c.created_by, ARTIFACTS.c.digest, ARTIFACTS.c.bytes).join(
            ARTIFACTS,
            (ARTIFACTS.c.model == VERSIONS.c.model) & (ARTIFACTS.c.number == VERSIONS.c.number),
        )
    )
    found: dict[str, dict[str, int]] = {}
    for by, digest, size in rows:
        found.setdefault(by, {})[digest] = size
    return found


def move_alias(connection: Connection, move: AliasMove) -> None:
    """Point an alias at a version."""
    connection.execute(insert(ALIAS_MOVES).values(**msgspec.structs.asdict(move)))


def alias_history(connection: Connection, model: str) -> list[AliasMove]:
    """Return all moves of a model's aliases, newest first."""
    columns = ALIAS_MOVES.c
    rows = connection.execute(
        select(columns.model, columns.alias, columns.number, columns.moved, columns.moved_by)
        .where(columns.model == model)
        .order_by(columns.id.desc())
    )
    return [AliasMove(**row) for row in rows.mappings()]


def add_settings(
    connection: Connection, model: str, number: int, document: str, now: float, by: str
) -> int:
    """Append a revision of a version's launch settings and return its number."""
    rows = settings_of(connection, model, number)
    revision = rows[-1].revision + 1 if rows else 1
    connection.execute(
        insert(LAUNCH_SETTINGS).values(
            model=model,
            number=number,
            revision=revision,
            document=document,
            created=now,
            created_by=by,
        )
    )
    return revision


def settings_of(connection: Connection, model: str, number: int) -> list[SettingsRow]:
    """Return all revisions of a version's launch settings, oldest first."""
    columns = LAUNCH_SETTINGS.c
    rows = connection.execute(
        select(columns.revision, columns.document, columns.created, columns.created_by)
        .where(columns.model == model, columns.number == number)
        .order_by(columns.revision)
    )
    return [SettingsRow(**row) for row in rows.mappings()]
