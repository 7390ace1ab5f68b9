"""The path of a model: fetch, scan, register. What follows, deploying, is ``deploy.py``.

Read ``bring_in`` from top to bottom. Nothing is visible as a version before its bytes are whole,
checked and stored under their digest; whatever stops on the way leaves nothing behind but
resumable downloads in scratch.
"""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from freehold.errors import DigestMismatch, FreeholdError, Invalid, Missing
from freehold.models.fetch import find
from freehold.models.gguf import read_header
from freehold.models.manifest import Manifest, describe
from freehold.models.registry import Draft, Registry, Version, check_name, suggest_name
from freehold.models.source import Fetched, Origin, Progress, Source
from freehold.store.blobs import Blobs
from freehold.store.versions import Artifact, Dependency


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody asks to bring in. ``sha256`` pins the bytes, when the asker knows them."""

    source: str
    name: str | None = None
    sha256: str | None = None
    licence: str | None = None
    dependencies: tuple[Dependency, ...] = ()


class Workshop(msgspec.Struct, frozen=True, kw_only=True):
    """What the path of a model works with."""

    sources: Mapping[str, Source]
    blobs: Blobs
    registry: Registry
    scratch: Path


def bring_in(
    arrival: Arrival, shop: Workshop, progress: Progress, now: float, by: str
) -> tuple[Version, bool]:
    """Fetch, check and register a model; return the version and whether it is new. Blocks."""
    if arrival.name is not None:
        check_name(arrival.name)
    source, origin = find(shop.sources, arrival.source)
    _check_pin(arrival, origin)
    present = _present(arrival, origin, shop, progress)
    if present is not None:
        return present, False
    # One for each arrival: others of the same source may be under way, with another pin.
    scratch = shop.scratch / hashlib.sha256(msgspec.json.encode(arrival)).hexdigest()[:16]
    scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
    fetched = _held(arrival, origin, shop) or source.fetch(origin, scratch, progress)
    try:
        weights = _weights(fetched)
        manifest = scan(weights, progress)
        artifact = _store(weights, fetched, arrival, origin, shop, progress)
    except (Invalid, DigestMismatch):  # no later try can make use of it
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    draft = Draft(
        model=arrival.name or suggest_name(fetched.name),
        manifest=manifest,
        artifacts=(artifact,),
        format="gguf",
        licence=arrival.licence or fetched.licence or manifest.licence,
        notice=fetched.notice,
        source=arrival.source,
        resolved=fetched.resolved,
        dependencies=_once((*_dependencies(manifest), *arrival.dependencies)),
    )
    registered = shop.registry.register(draft, now, by)
    shutil.rmtree(scratch, ignore_errors=True)
    return registered


def names_file(text: str, sources: Mapping[str, Source]) -> Path | None:
    """Return the file or folder on this machine that a source's text means, if it means one."""
    try:
        origin = find(sources, text)[1]
    except Missing:
        return None
    return Path(origin.location) if origin.source == "folder" else None


def is_held(digest: str, blobs: Blobs) -> bool:
    """Say whether the registry has these bytes, under whatever name."""
    try:
        return blobs.path(digest).is_file()
    except Missing:
        return False


def _check_pin(arrival: Arrival, origin: Origin) -> None:
    """Refuse before a download what could not be kept after it."""
    if arrival.sha256 and origin.sha256 and arrival.sha256 != origin.sha256:
        raise DigestMismatch(
            "invalid.digest",
            f"{arrival.source} is pinned to sha256:{origin.sha256}, not to sha256:"
            f"{arrival.sha256}: nothing was fetched",
            param="sha256",
        )


def _held(arrival: Arrival, origin: Origin, shop: Workshop) -> Fetched | None:
    """Return pinned bytes that the registry has under another name, where the source has none."""
    named = names_file(arrival.source, shop.sources)
    digest = arrival.sha256
    if named is None or named.exists() or digest is None or not is_held(digest, shop.blobs):
        return None
    return Fetched(
        name=arrival.name or origin.name or named.stem,
        files={"model.gguf": shop.blobs.path(digest)},
        resolved=str(named),
        moved=False,
    )


def _present(
    arrival: Arrival, origin: Origin, shop: Workshop, progress: Progress
) -> Version | None:
    """Return the version this would become, when its pinned bytes are here, whole and named so."""
    name, digest = arrival.name or origin.name, arrival.sha256 or origin.sha256
    if name is None or digest is None or name not in shop.registry.names():
        return None
    versions = shop.registry.versions(name)
    found = next((version for version in versions if version.row.digest == digest), None)
    if found is None:
        return None
    try:
        shop.blobs.verify(digest, lambda done, total: progress("verify", done, total))
    except FreeholdError:  # missing or damaged: fetching it again puts it right
        return None
    return found


def scan(weights: Path, progress: Progress) -> Manifest:
    """Read the header strictly: a file that lies about itself goes no further."""
    progress("scan", 0, 0)
    try:
        return describe(read_header(weights))
    except Invalid as error:
        raise Invalid(error.code, f"{weights.name}: {error.message}", param="source") from error


def _weights(fetched: Fetched) -> Path:
    if len(fetched.files) != 1:
        raise Invalid("invalid.source", f"{fetched.name} has {len(fetched.files)} files: name one")
    return next(iter(fetched.files.values()))


def _store(
    weights: Path,
    fetched: Fetched,
    arrival: Arrival,
    origin: Origin,
    shop: Workshop,
    progress: Progress,
) -> Artifact:
    digest, size = shop.blobs.add(
        weights,
        move=fetched.moved,
        expected=arrival.sha256 or origin.sha256,
        progress=lambda done, total: progress("store", done, total),
    )
    # The scanned bytes and the stored ones may differ if somebody wrote to the file in between.
    describe(read_header(shop.blobs.path(digest)))
    return Artifact(name="model.gguf", digest=digest, bytes=size)


def _once(dependencies: Sequence[Dependency]) -> tuple[Dependency, ...]:
    """Leave out what is said twice: by the file, and by who brings it in."""
    return tuple({(each.kind, each.target): each for each in dependencies}.values())


def _dependencies(manifest: Manifest) -> tuple[Dependency, ...]:
    bases = [Dependency(kind="base", target=base) for base in manifest.base_models]
    if manifest.tokenizer is not None and manifest.tokenizer.sha256:
        vocabulary = Dependency(
            kind="tokenizer",
            target=manifest.tokenizer.model or "tokenizer",
            digest=manifest.tokenizer.sha256,
        )
        return (*bases, vocabulary)
    return tuple(bases)
