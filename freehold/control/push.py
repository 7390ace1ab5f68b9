"""Send a version to a registry elsewhere, as a ModelPack v0.0.7 artifact."""

from freehold.control.control import Control
from freehold.control.jobs import Job
from freehold.errors import Invalid
from freehold.models.download import open_client
from freehold.models.oci.access import open_access
from freehold.models.oci.attached import attach
from freehold.models.oci.manifest import MANIFEST
from freehold.models.oci.pack import Package, pack
from freehold.models.oci.reference import Reference, read_reference
from freehold.models.oci.remote import Repository
from freehold.models.registry import Version
from freehold.models.source import Progress
from freehold.settings import environment

SCHEME = "oci://"


def start_push(control: Control, version: Version, target: str) -> Job:
    """Start sending a version; the same one under way is joined."""
    control.registry.admit(version)
    reference = read_target(target, version)
    package = pack(version, control.papers.card(version.row.model, version.row.number))

    def work(progress: Progress) -> dict[str, object]:
        _send(control, version, package, reference, progress)
        return {
            "model": version.row.model,
            "version": version.row.number,
            "target": f"{SCHEME}{reference}",
            "digest": package.digest,
        }

    subject = f"{version.row.model}:{version.row.number} to {reference}"
    return control.jobs.start("push", subject, work, same=package.digest)


def read_target(text: str, version: Version) -> Reference:
    """Return where a version goes; a target without a tag gets the version's number."""
    if not text.startswith(SCHEME):
        raise Invalid(
            "invalid.reference", "write oci://HOST[:PORT]/REPOSITORY[:TAG]", param="target"
        )
    found = read_reference(text.removeprefix(SCHEME))
    if found.digest or found.file:
        raise Invalid("invalid.reference", "push to a tag: the digest follows", param="target")
    if found.tag is not None:
        return found
    return Reference(host=found.host, repository=found.repository, tag=str(version.row.number))


def _send(
    control: Control, version: Version, package: Package, reference: Reference, progress: Progress
) -> None:
    settings = control.settings.sources
    access = open_access(reference.host, settings.hosts)
    total = sum(artifact.bytes for artifact in version.artifacts)
    before = 0
    with open_client(settings, environment(), redirects=False) as client:
        repository = Repository(client, access, reference.repository, "pull,push")
        for artifact in version.artifacts:
            # Nothing leaves that is not what its digest says.
            control.blobs.verify(artifact.digest, lambda done, of: progress("verify", done, of))
            path = control.blobs.path(artifact.digest)
            start = before
            repository.put_file(
                path,
                f"sha256:{artifact.digest}",
                lambda n: progress("push", start + n, total),  # noqa: B023
            )
            before += artifact.bytes
        for data in package.small.values():
            repository.put_bytes(data)
        # Last: whoever finds the manifest finds all that it names.
        repository.put_manifest(package.manifest, package.media_type, reference.label)
        for row in control.papers.signatures(version.row.model, version.row.number):
            made = attach(row.bundle, package.manifest, package.media_type)
            for data in made.blobs.values():
                repository.put_bytes(data)
            repository.put_manifest(made.manifest, MANIFEST, made.digest)
