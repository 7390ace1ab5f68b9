"""Our own registry: every model is a repository, every version an artifact in it.

What is pushed becomes a version by the same path as any import: fetched, scanned, registered; its
manifest is visible only then. What was imported otherwise is packed when somebody asks for it, the
same bytes every time. A number or an alias as a tag means that version, and cannot be pushed.
"""

import time
from contextlib import suppress
from pathlib import Path

import msgspec

from freehold.control.uploads import Uploads
from freehold.errors import (
    Broken,
    Conflict,
    Forbidden,
    FreeholdError,
    Invalid,
    Missing,
    Unavailable,
)
from freehold.models.admission import check_released
from freehold.models.naming import NAME
from freehold.models.oci.attached import Attached, attach
from freehold.models.oci.manifest import (
    MANIFEST,
    Manifest,
    blobs_of,
    read_manifest,
)
from freehold.models.oci.pack import Package, pack
from freehold.models.oci.reference import DIGEST, no_digest
from freehold.models.papers import Papers
from freehold.models.registry import Registry, Version
from freehold.store import repositories as rows
from freehold.store.blobs import Blobs
from freehold.store.database import Database
from freehold.store.repositories import Grant, ManifestRow

RESERVED = ("models", "health")
"""Names that begin paths of the Open Inference Protocol, below the same ``/v2/``."""
LICENCES = "org.opencontainers.image.licenses"
SMALL_ARTIFACT = 16 * 1024 * 1024


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest as it is served."""

    content: bytes
    media_type: str
    digest: str


class Repositories:
    """Rules of the registry; rows are in ``store.repositories``, bytes in uploads and blobs."""

    def __init__(
        self,
        database: Database,
        registry: Registry,
        papers: Papers,
        blobs: Blobs,
        uploads: Uploads,
    ) -> None:
        self._database = database
        self._registry = registry
        self._papers = papers
        self._blobs = blobs
        self.uploads = uploads

    def keep(self, row: ManifestRow, tag: str | None) -> None:
        """Make a manifest visible, and point a tag at it."""
        with self._database.transaction() as connection:
            rows.put_manifest(connection, row, tag)

    def grants(self) -> list[Grant]:
        """Return what is granted in all repositories."""
        with self._database.reading() as connection:
            return rows.grants(connection)

    def grant(self, grant: Grant) -> None:
        """Grant."""
        check_repository(grant.repository)
        with self._database.transaction() as connection:
            rows.put_grants(connection, [grant])

    def take_back(self, repository: str, subject: str) -> None:
        """Take back what was granted."""
        with self._database.transaction() as connection:
            if not rows.remove_grant(connection, repository, subject):
                raise Missing("missing.grant", f"{subject:.80} was granted nothing in {repository}")

    def names(self) -> list[str]:
        """Return all repositories, sorted."""
        with self._database.reading() as connection:
            pushed = rows.repositories(connection)
        return sorted({*self._registry.names(), *pushed} - set(RESERVED))

    def tags(self, repository: str) -> list[str]:
        """Return the tags of a repository, sorted; ``Missing`` where there is none."""
        with self._database.reading() as connection:
            pushed = set(rows.tags_of(connection, repository))
            known = bool(rows.manifests_of(connection, repository))
        versions = self.versions(repository)
        if not (versions or known):
            raise Missing("missing.repository", f"no repository {repository!r:.100}")
        numbers = {str(version.row.number) for version in versions}
        aliases = set(self._registry.aliases(repository)) if versions else set()
        return sorted(pushed | numbers | aliases)

    def manifest(self, repository: str, label: str) -> Found:
        """Return a manifest by tag or digest."""
        if label.startswith("sha256:"):
            found = self.by_digest(repository, label)
        else:
            found = self._by_tag(repository, label)
        if found is None:
            raise Missing("missing.manifest", f"{repository} has no manifest {label!r:.100}")
        return found

    def blob(self, repository: str, digest: str) -> tuple[Path | bytes, int]:
        """Return a blob, as a file or as the bytes themselves, and its size."""
        hexadecimal = check_digest(digest)
        for version in self._versions_with(repository, hexadecimal):
            check_released(version.row, version.quarantine)
        with self._database.reading() as connection:
            size = rows.blob_size(connection, repository, digest)
        path = None if size is None else self._pushed(hexadecimal)
        if size is not None and path is not None:
            return path, size
        for version in self._versions_with(repository, hexadecimal):
            artifact = next(each for each in version.artifacts if each.digest == hexadecimal)
            return self._blobs.path(hexadecimal), artifact.bytes
        for version in self.versions(repository):
            small = self._small(version)
            if digest in small:
                return small[digest], len(small[digest])
        raise Missing("missing.blob", f"{repository} has no blob {digest:.100}")

    def check_leaving(self, repository: str, digest: str) -> None:
        """Raise ``Refused`` where a blob is of a version that may not be handed on."""
        for version in self._versions_with(repository, digest.removeprefix("sha256:")):
            self._registry.admit(version)

    def has(self, repository: str, digest: str) -> int | None:
        """Return the bytes of a blob, None where the repository does not have it."""
        try:
            return self.blob(repository, digest)[1]
        except Missing:
            return None

    def finish(
        self, repository: str, upload: Path, digest: str, now: float, known: str = ""
    ) -> None:
        """Make a blob of an upload; blocks until it is on disk.

        ``known`` is what a gateway says of it, ``BYTES:SHA256``; else its bytes are read.
        """
        hexadecimal = check_digest(digest)
        with (
            self.uploads.whole(upload, hexadecimal, known) as size,
            self._database.transaction() as connection,
        ):
            rows.put_blob(connection, repository, digest, size, now)
            # Within: a sweep finds the blob and its row, or neither.
            self.uploads.admit(upload, hexadecimal)

    def _versions_with(self, repository: str, hexadecimal: str) -> list[Version]:
        """Return the versions of a repository of which a file has this digest."""
        return [
            version
            for version in self.versions(repository)
            if any(artifact.digest == hexadecimal for artifact in version.artifacts)
        ]

    def _pushed(self, hexadecimal: str) -> Path | None:
        """Return where the bytes of a blob lie that was pushed, None where they are gone."""
        with suppress(Missing):
            return self.uploads.blob(hexadecimal) or self._blobs.path(hexadecimal)
        return None

    def mount(self, repository: str, digest: str, origin: str, now: float) -> bool:
        """Give a repository a blob that another has; say whether that one has it."""
        size = self.has(origin, digest)
        if size is None:
            return False
        self.check_leaving(origin, digest)
        place = self.blob(origin, digest)[0]
        if isinstance(place, bytes):
            return False
        with self._database.transaction() as connection:
            rows.put_blob(connection, repository, digest, size, now)
        return True

    def remove(self, repository: str, label: str) -> None:
        """Remove a tag, or a manifest that is no version; versions are removed as such."""
        if not label.startswith("sha256:"):
            with self._database.transaction() as connection:
                if rows.remove_tag(connection, repository, label):
                    return
            self._refuse_version(repository, label)
            raise Missing("missing.manifest", f"{repository} has no tag {label!r:.100}")
        with self._database.transaction() as connection:
            row = rows.manifest_of(connection, repository, label)
            if row is not None and not self._is_version(row):
                rows.remove_manifest(connection, repository, label)
                return
        self._refuse_version(repository, label)
        raise Missing("missing.manifest", f"{repository} has no manifest {label:.100}")

    def referrers(self, repository: str, digest: str) -> list[dict[str, object]]:
        """Return the descriptors of what refers to a manifest: pushed, or signatures kept here."""
        check_digest(digest)
        with self._database.reading() as connection:
            pushed = rows.manifests_of(connection, repository)
        found = [_describe(row) for row in pushed if row.subject == digest and self._stands(row)]
        version = self.version_of(repository, digest)
        found += [each.described for each in self._attached(version)] if version else []
        return list({each["digest"]: each for each in found}.values())

    def sweep(self, seconds: float) -> int:
        """Delete what nobody goes on with, or names any more; return how many blobs."""
        self.uploads.forget(seconds)
        used: set[tuple[str, str]] = set()
        with self._database.transaction() as connection:
            for row in rows.manifests_of(connection):
                if not self._stands(row):
                    rows.remove_manifest(connection, row.repository, row.digest)
                    continue
                found = read_manifest(row.content, row.media_type)
                if isinstance(found, Manifest):
                    used |= {(row.repository, each.digest) for each in blobs_of(found)}
            for repository, digest in rows.old_blobs(connection, time.time() - seconds):
                if (repository, digest) not in used:
                    rows.remove_blob(connection, repository, digest)
            loose = [
                each
                for each in self.uploads.digests()
                if not rows.is_blob_used(connection, f"sha256:{each}")
            ]
            for each in loose:
                self.uploads.remove(each)
        return len(loose)

    def versions(self, repository: str) -> list[Version]:
        """Return the versions of the model that a repository is, none where it is not yet."""
        try:
            return self._registry.versions(repository)
        except Missing:
            return []

    def _pack(self, version: Version) -> Package:
        return pack(version, self._papers.card(version.row.model, version.row.number))

    def _small(self, version: Version) -> dict[str, bytes]:
        """Return the blobs that are made here for a version and its signatures, by digest."""
        small = dict(self._pack(version).small)
        for attached in self._attached(version):
            small |= attached.blobs
        return small

    def _packed(self, version: Version) -> Found:
        """Return the manifest of a version: the one it was pushed with, else one made here."""
        with self._database.reading() as connection:
            pushed = rows.manifests_of(connection, version.row.model)
        for row in pushed:
            if row.number == version.row.number:
                return Found(content=row.content, media_type=row.media_type, digest=row.digest)
        package = self._pack(version)
        return Found(content=package.manifest, media_type=package.media_type, digest=package.digest)

    def version_of(self, repository: str, digest: str) -> Version | None:
        """Return the version that a manifest is served for."""
        versions = self.versions(repository)
        return next((each for each in versions if self._packed(each).digest == digest), None)

    def _attached(self, version: Version) -> list[Attached]:
        """Return the signatures over a version, as artifacts that refer to it."""
        kept = self._papers.signatures(version.row.model, version.row.number)
        if not kept:
            return []
        subject = self._packed(version)
        return [attach(row.bundle, subject.content, subject.media_type) for row in kept]

    def aliases(self, repository: str) -> dict[str, int]:
        """Return the aliases of the model that a repository is."""
        return self._registry.aliases(repository)

    def by_digest(self, repository: str, digest: str) -> Found | None:
        """Return a manifest by its digest, None where there is none."""
        check_digest(digest)
        with self._database.reading() as connection:
            row = rows.manifest_of(connection, repository, digest)
        if row is not None and self._stands(row):
            return Found(content=row.content, media_type=row.media_type, digest=digest)
        for version in self.versions(repository):
            package = self._pack(version)
            if package.digest == digest:
                return Found(content=package.manifest, media_type=package.media_type, digest=digest)
            for each in self._attached(version):
                if each.digest == digest:
                    return Found(content=each.manifest, media_type=MANIFEST, digest=digest)
        return None

    def _by_tag(self, repository: str, tag: str) -> Found | None:
        version = self._labelled(repository, tag)
        if version is not None:
            return self._packed(version)
        with self._database.reading() as connection:
            digest = rows.tags_of(connection, repository).get(tag)
        return self.by_digest(repository, digest) if digest else None

    def _labelled(self, repository: str, tag: str) -> Version | None:
        """Return the version that a number or an alias means."""
        versions = self.versions(repository)
        if not versions:
            return None
        number = int(tag) if _is_number(tag) else self._registry.aliases(repository).get(tag)
        return next((version for version in versions if version.row.number == number), None)

    def _stands(self, row: ManifestRow) -> bool:
        """Say whether a manifest is still what it was: that of a removed version is none."""
        return row.number is None or self._is_version(row)

    def _is_version(self, row: ManifestRow) -> bool:
        return any(each.row.number == row.number for each in self.versions(row.repository))

    def _refuse_version(self, repository: str, label: str) -> None:
        with suppress(Missing):
            self.manifest(repository, label)
            raise Conflict(
                "conflict.version",
                f"{repository}:{label:.80} is a version: freehold model remove removes it",
            )


def check_repository(name: str) -> None:
    """Raise ``Invalid`` unless this can name a repository: as models are named."""
    if not NAME.fullmatch(name) or name in RESERVED:
        raise Invalid(
            "invalid.repository",
            f"{name!r:.140} can be no repository here: use a-z, 0-9, '.', '_' and '-', no '/', and "
            f"not {' or '.join(RESERVED)}",
        )


def check_digest(digest: str) -> str:
    """Return the digits of a digest; ``Invalid`` for another algorithm, or none."""
    if not DIGEST.fullmatch(digest):
        raise Invalid("invalid.digest", no_digest(digest))
    return digest.removeprefix("sha256:")


def failing(code: str, message: str) -> FreeholdError:
    """Return the error that a job ended with."""
    kinds = {"unavailable": Unavailable, "broken": Broken, "conflict": Conflict,
             "missing": Missing, "forbidden": Forbidden}  # fmt: skip
    return kinds.get(code.partition(".")[0], Invalid)(code, message)


def _describe(row: ManifestRow) -> dict[str, object]:
    found: dict[str, object] = {
        "mediaType": row.media_type,
        "digest": row.digest,
        "size": len(row.content),
    }
    if row.artifact_type:
        found["artifactType"] = row.artifact_type
    annotations = read_manifest(row.content, row.media_type).annotations
    if annotations:
        found["annotations"] = annotations
    return found


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9
