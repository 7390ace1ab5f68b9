"""Manifests of registries, read strictly: sizes, counts and names are held to limits first."""

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Annotated, Any

import msgspec

from freehold.errors import Invalid
from freehold.models.oci.reference import DIGEST, no_digest

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
MANIFESTS = (MANIFEST, DOCKER_MANIFEST)
INDEXES = (INDEX, DOCKER_LIST)
EMPTY = "application/vnd.oci.empty.v1+json"

TITLE = "org.opencontainers.image.title"
MOST_BYTES = 4 * 1024 * 1024
MOST_LAYERS = 1000
MOST_DEPTH = 32
LARGEST = 1 << 50
LONGEST_NAME = 255


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What a manifest says of a blob: its kind, its digest (``sha256:...``) and its bytes."""

    media_type: Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_NAME)]
    digest: str
    size: Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]
    annotations: dict[str, str] | None = None
    artifact_type: str | None = None

    @property
    def sha256(self) -> str:
        """The digest without its algorithm."""
        return self.digest.removeprefix("sha256:")


class Manifest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """An image manifest: what every artifact is, whatever it holds."""

    schema_version: int
    media_type: str = MANIFEST
    artifact_type: str | None = None
    config: Descriptor
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


class Index(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A list of manifests."""

    schema_version: int
    media_type: str = INDEX
    artifact_type: str | None = None
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


def digest_of(data: bytes) -> str:
    """Return ``sha256:...`` of some bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def read_manifest(data: bytes, media_type: str | None = None) -> Manifest | Index:
    """Return a manifest or an index; ``media_type`` is what the server calls it.

    A manifest that says two things of itself (two keys of one name, another kind than the server's)
    is refused, and so is every digest that is not SHA-256.
    """
    if len(data) > MOST_BYTES:
        raise Invalid("invalid.manifest", f"the manifest is over {MOST_BYTES} bytes")
    document = _document(data)
    kind = media_type.partition(";")[0].strip() if media_type else None
    own = document.get("mediaType")
    if kind in (*MANIFESTS, *INDEXES):
        if own is not None and own != kind:
            raise Invalid("invalid.manifest", f"{kind} calls itself {own!r:.100}")
    else:
        kind = own
    if kind is None:
        kind = INDEX if "manifests" in document else MANIFEST
    if ("manifests" in document) and ("layers" in document or "config" in document):
        raise Invalid("invalid.manifest", "it is an index and a manifest at once: one is wanted")
    if kind not in (*MANIFESTS, *INDEXES):
        raise Invalid("invalid.manifest", f"{kind!r:.120} is no kind of manifest that is known")
    try:
        found: Manifest | Index = (
            msgspec.convert(document | {"mediaType": kind}, Index)
            if kind in INDEXES
            else msgspec.convert(document | {"mediaType": kind}, Manifest)
        )
    except msgspec.ValidationError as error:
        raise Invalid("invalid.manifest", f"the manifest is wrong: {error}") from error
    _check(found)
    return found


def blobs_of(manifest: Manifest) -> tuple[Descriptor, ...]:
    """Return what a manifest is made of, its configuration first."""
    return (manifest.config, *manifest.layers)


def name_of(descriptor: Descriptor, *keys: str) -> str | None:
    """Return the file name that an annotation gives a blob; ``Invalid`` for one that escapes."""
    for key in keys:
        name = (descriptor.annotations or {}).get(key)
        if name:
            return check_file_name(name)
    return None


def check_file_name(name: str) -> str:
    """Return a relative name of plain parts; ``Invalid`` for any other."""
    parts = PurePosixPath(name).parts
    odd = any(unicodedata.category(letter)[0] == "C" for letter in name)
    if (
        odd
        or len(name) > LONGEST_NAME
        or "\\" in name
        or name.startswith("/")
        or ":" in name
        or not parts
        or ".." in parts
    ):
        raise Invalid(
            "invalid.file_name",
            f"the artifact names a file {name!r:.80}: a plain relative name is wanted",
            param="source",
        )
    return "/".join(parts)


def _document(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data, object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Invalid("invalid.manifest", f"the manifest is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise Invalid("invalid.manifest", "the manifest is no JSON object")
    return document


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


def _check(found: Manifest | Index) -> None:
    if found.schema_version != 2:
        raise Invalid("invalid.manifest", f"schema version {found.schema_version}: 2 is wanted")
    listed = found.manifests if isinstance(found, Index) else blobs_of(found)
    if len(listed) > MOST_LAYERS:
        raise Invalid("invalid.manifest", f"it lists {len(listed)} blobs: {MOST_LAYERS} is most")
    sizes: dict[str, int] = {}
    for each in (*listed, *((found.subject,) if found.subject else ())):
        if not DIGEST.fullmatch(each.digest):
            raise Invalid("invalid.manifest", no_digest(each.digest))
        if sizes.setdefault(each.digest, each.size) != each.size:
            raise Invalid("invalid.manifest", f"it gives {each.digest} two sizes")
