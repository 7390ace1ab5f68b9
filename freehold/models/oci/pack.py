"""A version as a ModelPack v0.0.7 artifact: the same version is always the same bytes."""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from freehold.models.oci import media
from freehold.models.oci.manifest import MANIFEST, TITLE, Descriptor, Manifest, digest_of
from freehold.models.registry import Version
from freehold.store.versions import Artifact

CARD = "README.md"
PRECISIONS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_WEIGHTS = (".gguf", ".safetensors", ".onnx", ".bin", ".pt")


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact: its manifest, and the small blobs that are made here, by digest.

    ``files`` are the digests (``sha256:...``) of the blobs that are a version's own files.
    """

    manifest: bytes
    media_type: str
    small: dict[str, bytes]
    files: tuple[str, ...]

    @property
    def digest(self) -> str:
        """The digest that the artifact is known by."""
        return digest_of(self.manifest)


def pack(version: Version, card: str | None) -> Package:
    """Return a version, and its model card where there is one, as an artifact."""
    text = card.encode() if card else None
    layers = [_file(artifact, version.row.created) for artifact in version.artifacts]
    if text is not None:
        layers.append(_layer(f"{media.DOC}{media.RAW}", CARD, digest_of(text), len(text),
                             version.row.created))  # fmt: skip
    config = _encode(_config(version, layers))
    manifest = Manifest(
        schema_version=2,
        artifact_type=media.ARTIFACT,
        config=Descriptor(media_type=media.CONFIG, digest=digest_of(config), size=len(config)),
        layers=tuple(layers),
        annotations={
            "org.opencontainers.image.created": _time(version.row.created),
            "org.opencontainers.image.title": version.row.model,
            "org.opencontainers.image.version": str(version.row.number),
            **({"org.opencontainers.image.licenses": version.row.licence}
               if version.row.licence else {}),
        },
    )  # fmt: skip
    # A manifest says its own kind, which msgspec leaves out as the default.
    document = {"schemaVersion": 2, "mediaType": MANIFEST} | msgspec.to_builtins(manifest)
    small = {digest_of(config): config}
    if text is not None:
        small[digest_of(text)] = text
    return Package(
        manifest=_encode(document),
        media_type=MANIFEST,
        small=small,
        files=tuple(f"sha256:{artifact.digest}" for artifact in version.artifacts),
    )


def _file(artifact: Artifact, created: float) -> Descriptor:
    weights = artifact.name.endswith(_WEIGHTS)
    kind = media.WEIGHT if weights else media.WEIGHT_CONFIG
    return _layer(
        kind + media.RAW, artifact.name, f"sha256:{artifact.digest}", artifact.bytes, created
    )


def _layer(media_type: str, name: str, digest: str, size: int, created: float) -> Descriptor:
    metadata = {
        "name": name, "mode": 0o644, "uid": 0, "gid": 0, "size": size, "mtime": _time(created),
        "typeflag": ord("0"),
    }  # fmt: skip
    return Descriptor(
        media_type=media_type,
        digest=digest,
        size=size,
        annotations={
            media.FILEPATH: name,
            TITLE: name,
            media.METADATA: _encode(metadata).decode(),
        },
    )


def _config(version: Version, layers: Sequence[Descriptor]) -> dict[str, object]:
    row, manifest = version.row, version.manifest
    descriptor: dict[str, object] = {
        "createdAt": _time(row.created),
        "family": manifest.architecture,
        "name": row.model,
        "version": str(row.number),
    }
    if row.licence:
        descriptor["licenses"] = [row.licence]
    technical: dict[str, object] = {
        "architecture": "transformer",
        "format": row.format,
        "paramSize": parameters(manifest.parameters),
    }
    if manifest.quantisation in PRECISIONS:
        technical["precision"] = PRECISIONS[manifest.quantisation]
    else:
        technical["quantization"] = manifest.quantisation
    # Layers are raw: what their digest is of is what they hold.
    return {
        "descriptor": descriptor,
        "config": technical,
        "modelfs": {"type": "layers", "diffIds": [layer.digest for layer in layers]},
    }


def parameters(count: int) -> str:
    """Return a number of parameters as ModelPack writes it: one letter, at most one decimal."""
    for letter, unit in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if count >= unit:
            return f"{count / unit:.1f}".removesuffix(".0") + letter
    return f"{count / 1000:.1f}".removesuffix(".0") + "K"


def _time(at: float) -> str:
    return datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _encode(value: object) -> bytes:
    return msgspec.json.encode(value)
