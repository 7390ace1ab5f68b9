"""``source.oci``: an artifact of an OCI registry, ModelPack or plain."""

from contextlib import suppress
from pathlib import Path

from pyreqwest.client import SyncClient

from freehold.errors import Invalid, Missing
from freehold.models.download import open_client
from freehold.models.oci import media
from freehold.models.oci.access import open_access
from freehold.models.oci.attached import bundles_of
from freehold.models.oci.choose import Layer, choose, only_model
from freehold.models.oci.manifest import Index, Manifest, read_manifest
from freehold.models.oci.reference import Reference, read_reference
from freehold.models.oci.remote import Repository
from freehold.models.oci.unpack import check_packing, unpack
from freehold.models.papers import MOST_SIGNATURES
from freehold.models.signing.bundle import MEDIA_TYPE
from freehold.models.source import Fetched, Origin, Progress
from freehold.settings import Sources, environment

CARD_BYTES = 256 * 1024
SIGNATURE_BYTES = 1024 * 1024


class OCI:
    """Reads ``oci://HOST[:PORT]/REPOSITORY[:TAG][@sha256:DIGEST][#FILE]``."""

    scheme = "oci://"

    def __init__(self, settings: Sources) -> None:
        self._settings = settings

    def claims(self, text: str) -> Origin | None:
        """Claim ``oci://...``; a file that the digest of a manifest names is not pinned by it."""
        if not text.startswith(self.scheme):
            return None
        return Origin(source=type(self).__name__.lower(), location=text.removeprefix(self.scheme))

    def read(self, location: str) -> Reference:
        """Return the artifact that a location means."""
        return read_reference(location)

    def fetch(self, origin: Origin, scratch: Path, progress: Progress) -> Fetched:
        """Fetch the manifest, then the layers that are the model; never what is code."""
        wanted = self.read(origin.location)
        access = open_access(wanted.host, self._settings.hosts)
        with open_client(self._settings, environment(), redirects=False) as client:
            repository = Repository(client, access, wanted.repository, "pull")
            manifest, digest = _manifest(repository, wanted)
            return _bring(repository, manifest, digest, wanted, scratch, progress, self.scheme)


def open_repository(client: SyncClient, reference: Reference, settings: Sources) -> Repository:
    """Return a repository to write to."""
    access = open_access(reference.host, settings.hosts)
    return Repository(client, access, reference.repository, "pull,push")


def _manifest(repository: Repository, wanted: Reference) -> tuple[Manifest, str]:
    if wanted.tag and wanted.digest:
        # Both are promises: a tag that has moved on is said, not silently passed over.
        told = repository.tag_digest(wanted.tag)
        if told not in (None, wanted.digest):
            raise Invalid(
                "invalid.reference",
                f"{wanted.tag} is {told} there, not {wanted.digest}: leave out one of the two",
                param="source",
            )
    data, digest, kind = repository.manifest(wanted.label)
    found = read_manifest(data, kind)
    if isinstance(found, Index):
        if len(found.manifests) != 1:
            listed = ", ".join(each.digest for each in found.manifests[:10])
            raise Invalid(
                "invalid.artifact", f"an index of {len(found.manifests)}: name one of {listed}"
            )
        data, digest, kind = repository.manifest(found.manifests[0].digest)
        found = read_manifest(data, kind)
        if isinstance(found, Index):
            raise Invalid("invalid.artifact", "an index within an index: name the manifest itself")
    return found, digest


def _bring(
    repository: Repository,
    manifest: Manifest,
    digest: str,
    wanted: Reference,
    scratch: Path,
    progress: Progress,
    scheme: str,
) -> Fetched:
    chosen = choose(manifest, wanted.file)
    for layer in chosen.files:
        check_packing(layer.packed)
    total = sum(layer.blob.size for layer in chosen.files)
    files: dict[str, Path] = {}
    before = 0
    for number, layer in enumerate(chosen.files):
        place = scratch / f"layer-{layer.blob.sha256[:32]}"
        if not place.exists():
            _fetch(repository, layer, place, progress, before, total)
        before += layer.blob.size
        if layer.packed == media.RAW:
            assert layer.name is not None
            files[layer.name] = place
            continue
        folder = scratch / f"unpacked-{number}"
        folder.mkdir(exist_ok=True, mode=0o700)
        for name, path in unpack(
            place, layer.packed, folder, lambda n: progress("unpack", n, 0)
        ).items():
            if name in files:
                raise Invalid("invalid.artifact", f"two layers hold a file {name!r:.80}")
            files[name] = path
        place.unlink()
    models = only_model(list(files), wanted.file)
    single = len(models) == 1 and models[0].endswith(".gguf")
    card = repository.small(chosen.card.blob, CARD_BYTES) if chosen.card else None
    signed = repository.small(chosen.signature.blob, SIGNATURE_BYTES) if chosen.signature else None
    return Fetched(
        name=wanted.repository.rpartition("/")[2],
        files={"model.gguf": files[models[0]]}
        if single
        else {name: files[name] for name in models},
        resolved=f"{scheme}{wanted.host}/{wanted.repository}@{digest}"
        + (f"#{wanted.file}" if wanted.file else ""),
        moved=True,
        licence=(manifest.annotations or {}).get("org.opencontainers.image.licenses"),
        card=card.decode("utf-8", "replace") if card else None,
        signature=signed,
        attached=_attached(repository, digest),
        beside={name: path for name, path in files.items() if name not in models},
    )


def _attached(repository: Repository, digest: str) -> tuple[bytes, ...]:
    """Return the signatures that the registry has about an artifact; whose count is seen later.

    What is no sound signature is passed over: where one is required, it is missed then.
    """
    found: list[bytes] = []
    with suppress(Invalid):
        for each in repository.referrers(digest, MEDIA_TYPE)[:MOST_SIGNATURES]:
            with suppress(Invalid, Missing):
                data, _, kind = repository.manifest(each.digest)
                manifest = read_manifest(data, kind)
                if isinstance(manifest, Manifest):
                    blobs = bundles_of(manifest)[:1]
                    found += [repository.small(blob, SIGNATURE_BYTES) for blob in blobs]
    return tuple(found)


def _fetch(
    repository: Repository,
    layer: Layer,
    place: Path,
    progress: Progress,
    before: int,
    total: int,
) -> None:
    repository.blob(layer.blob, place, lambda done: progress("fetch", before + done, total))
