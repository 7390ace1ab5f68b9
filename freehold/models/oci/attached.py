"""A signature as an artifact that refers to the one it is about: OCI 1.1 referrers. Pure."""

import msgspec

from freehold.models.oci.manifest import EMPTY, MANIFEST, Descriptor, Manifest, digest_of
from freehold.models.signing.bundle import LARGEST, MEDIA_TYPE

NOTHING = b"{}"


class Attached(msgspec.Struct, frozen=True, kw_only=True):
    """A signature's artifact: its manifest, and the blobs it is made of by digest."""

    manifest: bytes
    blobs: dict[str, bytes]

    @property
    def digest(self) -> str:
        """The digest that the artifact is known by."""
        return digest_of(self.manifest)

    @property
    def described(self) -> dict[str, object]:
        """The artifact as a list of referrers names it."""
        return {
            "mediaType": MANIFEST,
            "digest": self.digest,
            "size": len(self.manifest),
            "artifactType": MEDIA_TYPE,
        }


def attach(bundle: bytes, subject: bytes, media_type: str) -> Attached:
    """Return a signature bundle as an artifact about ``subject``; always the same bytes."""
    made = Manifest(
        schema_version=2,
        artifact_type=MEDIA_TYPE,
        config=Descriptor(media_type=EMPTY, digest=digest_of(NOTHING), size=len(NOTHING)),
        layers=(Descriptor(media_type=MEDIA_TYPE, digest=digest_of(bundle), size=len(bundle)),),
        subject=Descriptor(media_type=media_type, digest=digest_of(subject), size=len(subject)),
    )
    # A manifest says its own kind, which msgspec leaves out as the default.
    document = {"schemaVersion": 2, "mediaType": MANIFEST} | msgspec.to_builtins(made)
    return Attached(
        manifest=msgspec.json.encode(document),
        blobs={digest_of(NOTHING): NOTHING, digest_of(bundle): bundle},
    )


def bundles_of(found: Manifest) -> tuple[Descriptor, ...]:
    """Return the blobs of an artifact that are signature bundles, none larger than one can be."""
    return tuple(
        each for each in found.layers if each.media_type == MEDIA_TYPE and each.size <= LARGEST
    )
