"""What is pushed to our own registry, on its way to being a version: checked, scanned, visible."""

from contextlib import suppress
from pathlib import Path

import msgspec

from freehold.control.repositories import Repositories
from freehold.errors import Conflict, Invalid
from freehold.models.oci import media
from freehold.models.oci.attached import bundles_of
from freehold.models.oci.choose import Chosen, choose
from freehold.models.oci.manifest import Index, Manifest, blobs_of, digest_of, read_manifest
from freehold.models.oci.pushed import Pushed
from freehold.models.oci.reference import TAG
from freehold.models.pipeline import Arrival, Workshop, bring_in
from freehold.models.source import Progress
from freehold.settings import Registry as Settings
from freehold.store.blobs import Blobs
from freehold.store.repositories import ManifestRow

LICENCES = "org.opencontainers.image.licenses"
SMALL_ARTIFACT = 16 * 1024 * 1024


class Pushes:
    """Takes manifests in; with ``registry.any_artifact`` also of what is no model."""

    def __init__(self, repositories: Repositories, blobs: Blobs, settings: Settings) -> None:
        self._repositories = repositories
        self._blobs = blobs
        self._any = settings.any_artifact

    def check(
        self, repository: str, label: str, data: bytes, media_type: str | None
    ) -> tuple[Manifest | Index, Chosen | None]:
        """Return what is pushed, and which of it is a model; raise what stands against it."""
        digest = digest_of(data)
        if label.startswith("sha256:"):
            if label != digest:
                raise Invalid("invalid.digest", f"the manifest is {digest}, not {label:.100}")
        else:
            self._check_tag(repository, label)
        found = read_manifest(data, media_type)
        self._check_parts(repository, found)
        chosen = None
        if isinstance(found, Manifest):
            try:
                chosen = choose(found, None)
            except Invalid:
                if found.artifact_type == media.ARTIFACT:
                    raise
        if chosen is None and not self._any:
            self._check_attached(repository, found)
        return found, chosen

    def take(
        self,
        repository: str,
        label: str,
        data: bytes,
        found: Manifest | Index,
        chosen: Chosen | None,
        shop: Workshop,
        progress: Progress,
        now: float,
        by: str,
    ) -> int | None:
        """Make a pushed manifest visible, a model once it is a version; return that number."""
        digest, number = digest_of(data), None
        if chosen is not None:
            assert isinstance(found, Manifest)
            number = self._import(repository, digest, found, chosen, shop, progress, now, by)
        row = ManifestRow(
            repository=repository,
            digest=digest,
            media_type=found.media_type,
            artifact_type=_kind(found),
            content=data,
            subject=found.subject.digest if found.subject else None,
            number=number,
            created=now,
            created_by=by,
        )
        tag = None if label.startswith("sha256:") else label
        self._repositories.keep(row, tag)
        if isinstance(found, Manifest) and found.subject is not None:
            self._sign(repository, found.subject.digest, found, shop, now, by)
        return number

    def _sign(
        self, repository: str, subject: str, found: Manifest, shop: Workshop, now: float, by: str
    ) -> None:
        """Keep a signature over a version with it, too; others are only served again."""
        version = self._repositories.version_of(repository, subject)
        if version is None:
            return
        for blob in bundles_of(found):
            place, _ = self._repositories.blob(repository, blob.digest)
            bundle = place if isinstance(place, bytes) else place.read_bytes()
            with suppress(Invalid):
                shop.papers.sign(version, bundle, now, by)

    def _import(
        self,
        repository: str,
        digest: str,
        found: Manifest,
        chosen: Chosen,
        shop: Workshop,
        progress: Progress,
        now: float,
        by: str,
    ) -> int:
        text = f"pushed:{repository}@{digest}"
        licence = (found.annotations or {}).get(LICENCES)
        uploads = self._repositories.uploads
        is_new = lambda digest: uploads.blob(digest) is not None  # noqa: E731
        source = Pushed(text, chosen, licence, self._file, is_new)
        own = msgspec.structs.replace(shop, sources={"pushed": source})
        version, _ = bring_in(Arrival(source=text, name=repository), own, progress, now, by)
        for artifact in version.artifacts:
            # The registry of models has them now; one place for the same bytes is enough.
            self._repositories.uploads.remove(artifact.digest)
        return version.row.number

    def _file(self, hexadecimal: str) -> Path:
        return self._repositories.uploads.blob(hexadecimal) or self._blobs.path(hexadecimal)

    def _check_tag(self, repository: str, tag: str) -> None:
        if not TAG.fullmatch(tag):
            raise Invalid("invalid.tag", f"{tag!r:.140} can be no tag")
        if tag.isdigit():
            raise Invalid(
                "invalid.tag", f"{tag:.20} is a version's number here: push to a tag with letters"
            )
        if self._repositories.versions(repository) and tag in self._repositories.aliases(
            repository
        ):
            raise Conflict(
                "conflict.alias",
                f"{repository}:{tag} is an alias, which moves deployments: push to another tag, "
                "then freehold model promote",
            )

    def _check_parts(self, repository: str, found: Manifest | Index) -> None:
        if isinstance(found, Index):
            for each in found.manifests:
                if self._repositories.by_digest(repository, each.digest) is None:
                    raise Invalid("invalid.manifest_blob", f"push {each.digest} before its index")
            return
        for each in blobs_of(found):
            size = self._repositories.has(repository, each.digest)
            if size is None and ".nondistributable." in each.media_type:
                continue  # such layers are fetched elsewhere, by those who may
            if size is None:
                raise Invalid(
                    "invalid.manifest_blob", f"push the blob {each.digest} before its manifest"
                )
            if size != each.size:
                raise Invalid(
                    "invalid.manifest", f"{each.digest} has {size} bytes, not {each.size}"
                )

    def _check_attached(self, repository: str, found: Manifest | Index) -> None:
        """Refuse what is neither a model nor something small that belongs to one."""
        if (
            isinstance(found, Manifest)
            and found.subject is not None
            and sum(each.size for each in blobs_of(found)) <= SMALL_ARTIFACT
        ):
            return
        raise Invalid(
            "invalid.manifest",
            "this artifact holds no model: a layer with weights is wanted (GGUF as ModelPack, or "
            f"named *.gguf); registry.any_artifact lets others into {repository}",
        )


def _kind(found: Manifest | Index) -> str | None:
    if found.artifact_type or isinstance(found, Index):
        return found.artifact_type
    return found.config.media_type
