"""Rows of our own registry: manifests, tags and blobs of repositories, and who may use them."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.sqlite import insert

from freehold.store.tables import (
    REPOSITORY_BLOBS,
    REPOSITORY_GRANTS,
    REPOSITORY_MANIFESTS,
    REPOSITORY_TAGS,
)

_M, _T, _B, _G = REPOSITORY_MANIFESTS.c, REPOSITORY_TAGS.c, REPOSITORY_BLOBS.c, REPOSITORY_GRANTS.c


class ManifestRow(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest as it was pushed. ``number`` is the version that it became, if it did."""

    repository: str
    digest: str
    media_type: str
    artifact_type: str | None
    content: bytes
    subject: str | None
    number: int | None
    created: float
    created_by: str


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """Who may do what in a repository: ``subject`` is ``principal:``, ``team:`` or ``key:NAME``."""

    repository: str
    subject: str
    access: str
    created: float
    created_by: str


def put_manifest(connection: Connection, row: ManifestRow, tag: str | None) -> None:
    """Keep a manifest, and point a tag at it."""
    values = insert(REPOSITORY_MANIFESTS).values(**msgspec.structs.asdict(row))
    connection.execute(
        values.on_conflict_do_update(
            index_elements=["repository", "digest"],
            set_={"number": row.number, "media_type": row.media_type},
        )
    )
    if tag is not None:
        point = insert(REPOSITORY_TAGS).values(
            repository=row.repository, tag=tag, digest=row.digest
        )
        connection.execute(
            point.on_conflict_do_update(
                index_elements=["repository", "tag"], set_={"digest": row.digest}
            )
        )


def manifest_of(connection: Connection, repository: str, digest: str) -> ManifestRow | None:
    """Return a manifest by its digest."""
    found = connection.execute(
        select(REPOSITORY_MANIFESTS).where(_M.repository == repository, _M.digest == digest)
    ).mappings()
    return next((ManifestRow(**row) for row in found), None)


def manifests_of(connection: Connection, repository: str | None = None) -> list[ManifestRow]:
    """Return the manifests of a repository, or all, oldest first."""
    query = select(REPOSITORY_MANIFESTS).order_by(_M.created, _M.digest)
    if repository is not None:
        query = query.where(_M.repository == repository)
    return [ManifestRow(**row) for row in connection.execute(query).mappings()]


def remove_manifest(connection: Connection, repository: str, digest: str) -> bool:
    """Forget a manifest and its tags; say whether it was there."""
    of = (_M.repository == repository, _M.digest == digest)
    return connection.execute(delete(REPOSITORY_MANIFESTS).where(*of)).rowcount > 0


def tags_of(connection: Connection, repository: str) -> dict[str, str]:
    """Return the tags of a repository and the digests they point at."""
    rows = connection.execute(
        select(_T.tag, _T.digest).where(_T.repository == repository).order_by(_T.tag)
    )
    return {row.tag: row.digest for row in rows}


def remove_tag(connection: Connection, repository: str, tag: str) -> bool:
    """Forget a tag; say whether it was there."""
    of = (_T.repository == repository, _T.tag == tag)
    return connection.execute(delete(REPOSITORY_TAGS).where(*of)).rowcount > 0


def put_blob(connection: Connection, repository: str, digest: str, size: int, now: float) -> None:
    """Note that a repository has a blob."""
    row = insert(REPOSITORY_BLOBS).values(
        repository=repository, digest=digest, bytes=size, created=now
    )
    connection.execute(
        row.on_conflict_do_update(
            index_elements=["repository", "digest"], set_={"created": now, "bytes": size}
        )
    )


def blob_size(connection: Connection, repository: str, digest: str) -> int | None:
    """Return how many bytes a repository's blob has, None where it has no such blob."""
    size: int | None = connection.execute(
        select(_B.bytes).where(_B.repository == repository, _B.digest == digest)
    ).scalar()
    return size


def old_blobs(connection: Connection, before: float) -> list[tuple[str, str]]:
    """Return (repository, digest) of the blobs that came before a time."""
    rows = connection.execute(select(_B.repository, _B.digest).where(_B.created < before))
    return [(row.repository, row.digest) for row in rows]


def remove_blob(connection: Connection, repository: str, digest: str) -> None:
    """Forget that a repository has a blob."""
    of = (_B.repository == repository, _B.digest == digest)
    connection.execute(delete(REPOSITORY_BLOBS).where(*of))


def is_blob_used(connection: Connection, digest: str) -> bool:
    """Say whether any repository has a blob."""
    found = connection.execute(select(_B.digest).where(_B.digest == digest)).first()
    return found is not None


def repositories(connection: Connection) -> list[str]:
    """Return the repositories that somebody pushed to."""
    return list(connection.execute(select(_M.repository).distinct()).scalars())


def grants(connection: Connection) -> list[Grant]:
    """Return everything that is granted, by repository and subject."""
    rows = connection.execute(select(REPOSITORY_GRANTS).order_by(_G.repository, _G.subject))
    return [Grant(**row) for row in rows.mappings()]


def put_grants(connection: Connection, rows: Sequence[Grant]) -> None:
    """Grant; what the same subject had in the same repository is replaced."""
    for row in rows:
        values = insert(REPOSITORY_GRANTS).values(**msgspec.structs.asdict(row))
        connection.execute(
            values.on_conflict_do_update(
                index_elements=["repository", "subject"],
                set_={"access": row.access, "created": row.created, "created_by": row.created_by},
            )
        )


def remove_grant(connection: Connection, repository: str, subject: str) -> bool:
    """Take back what a subject was granted; say whether it was."""
    of = (_G.repository == repository, _G.subject == subject)
    return connection.execute(delete(REPOSITORY_GRANTS).where(*of)).rowcount > 0
