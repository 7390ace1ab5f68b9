"""The path of a model: fetch, identify, scan, register. What follows, deploying, is ``deploy.py``.

Read ``bring_in`` from top to bottom. Nothing is visible as a version before its bytes are whole,
checked and stored under their digest; whatever stops on the way leaves nothing behind but
resumable downloads in scratch. What the scan finds makes a version in quarantine; what is no sound
model makes none.
"""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from freehold.errors import DigestMismatch, Forbidden, FreeholdError, Invalid, Refused
from freehold.models.fetch import fetch, find, is_held, names_file
from freehold.models.identify import Identified, digest_of, identify, named
from freehold.models.licence import judge, together
from freehold.models.naming import check_name, suggest_name
from freehold.models.needs import needs_of, once
from freehold.models.papers import Papers, admit
from freehold.models.registry import Draft, Registry, Version
from freehold.models.scan.beside import look_beside
from freehold.models.scan.finding import Finding
from freehold.models.scan.scan import scan
from freehold.models.source import Fetched, Origin, Progress, Source
from freehold.settings import Licences, Scan
from freehold.store.blobs import Blobs
from freehold.store.versions import Artifact, Dependency


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """What to bring in. ``sha256`` pins the bytes; ``signature`` is a bundle over them."""

    source: str
    name: str | None = None
    sha256: str | None = None
    licence: str | None = None
    dependencies: tuple[Dependency, ...] = ()
    signature: bytes | None = None


class Workshop(msgspec.Struct, frozen=True, kw_only=True):
    """What the path of a model works with."""

    sources: Mapping[str, Source]
    blobs: Blobs
    registry: Registry
    scratch: Path
    papers: Papers
    scan: Scan = Scan()
    licences: Licences = Licences()


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
        given = (arrival.signature,) if arrival.signature is not None else ()
        return _signed(present, given, shop, now, by), False
    # One for each arrival: others of the same source may be under way, with another pin.
    scratch = shop.scratch / hashlib.sha256(msgspec.json.encode(arrival)).hexdigest()[:16]
    scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
    fetched = _held(arrival, origin, shop) or fetch(source, origin, scratch, progress)
    try:
        identified = _identified(fetched.files)
        _check_licence(identified, fetched, arrival, shop.licences)
        needs = needs_of(identified, arrival.dependencies, fetched.files, shop.registry, shop.blobs)
        # Files in scratch are ours alone; others may be written to while they are scanned.
        found = scan_files(fetched.files, shop, progress) if fetched.moved else None
        artifacts = _store(fetched, shop, progress)
        draft = _draft(arrival, origin, fetched, artifacts, needs, shop, found, progress)
        digests = [artifact.digest for artifact in draft.artifacts]
        beside = (fetched.signature, *fetched.attached)
        signatures = admit(shop.papers, arrival.signature, beside, digests)
        draft = msgspec.structs.replace(
            draft,
            card=fetched.card,
            signatures=signatures,
            findings=draft.findings + _beside(fetched, draft, shop),
            left_out=tuple(fetched.beside),
        )
        version, new = shop.registry.register(draft, now, by)
    except (Invalid, DigestMismatch, Forbidden):  # no later try can make use of it
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    shutil.rmtree(scratch, ignore_errors=True)
    return version if new else _signed(version, signatures, shop, now, by), new


def _signed(
    version: Version, signatures: Sequence[bytes], shop: Workshop, now: float, by: str
) -> Version:
    """Keep the signatures that came with a version which is here already."""
    for bundle in signatures:
        shop.papers.sign(version, bundle, now, by)
    return version


def _beside(fetched: Fetched, draft: Draft, shop: Workshop) -> tuple[Finding, ...]:
    """Return what is found beside a new model: nothing about a version that is in use already."""
    known = draft.model in shop.registry.names() and shop.registry.versions(draft.model)
    digests = [version.row.digest for version in known or ()]
    if digest_of(draft.artifacts, draft.format) in digests:
        return ()
    return look_beside(fetched.beside)


def scan_files(
    files: Mapping[str, Path], shop: Workshop, progress: Progress
) -> tuple[Finding, ...]:
    """Return what a scan finds in the files of a model, which lie where nobody can change them."""
    return scan(files, shop.scan, progress, _identified(files).companions)


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
        for artifact in found.artifacts:
            shop.blobs.verify(artifact.digest, lambda n, of: progress("verify", n, of))
    except FreeholdError:  # missing or damaged: fetching it again puts it right
        return None
    return found


def _identified(files: Mapping[str, Path]) -> Identified:
    """Read headers strictly: files that lie about themselves go no further."""
    try:
        return identify(files)
    except Invalid as error:
        raise named(error, files) from error


def _check_licence(
    identified: Identified, fetched: Fetched, arrival: Arrival, policy: Licences
) -> None:
    """Refuse what could never be deployed, before it takes any room; whoever says so."""
    told = (arrival.licence, fetched.licence, identified.manifest.licence)
    if judge(told, policy) == "deny":
        names = ", ".join(dict.fromkeys(name for name in told if name)) or "unknown"
        raise Refused(
            "refused.licence",
            f"{arrival.source} is under the licence {names}, which the setting licences of this "
            "Freehold denies: nothing was kept",
            param="source",
        )


def _store(fetched: Fetched, shop: Workshop, progress: Progress) -> tuple[Artifact, ...]:
    made: list[Artifact] = []
    try:
        for name, path in fetched.files.items():
            digest, size = shop.blobs.add(
                path,
                move=fetched.moved,
                expected=fetched.digests.get(name),
                is_hashed=name in fetched.hashed,
                progress=lambda n, of: progress("store", n, of),
            )
            made.append(Artifact(name=name, digest=digest, bytes=size))
    except BaseException:
        shop.registry.discard(made)
        raise
    return tuple(made)


def _draft(
    arrival: Arrival,
    origin: Origin,
    fetched: Fetched,
    artifacts: Sequence[Artifact],
    needs: Sequence[Dependency],
    shop: Workshop,
    found: tuple[Finding, ...] | None,
    progress: Progress,
) -> Draft:
    """Make a draft of stored files, or take them away again."""
    try:
        stored = {each.name: shop.blobs.path(each.digest) for each in artifacts}
        # The identified bytes and the stored ones may differ if somebody wrote in between.
        identified = identify(stored)
        ordered = sorted(artifacts, key=lambda each: (each.name != identified.main, each.name))
        _check_digest(digest_of(ordered, identified.format), arrival.sha256 or origin.sha256)
        findings = scan_files(stored, shop, progress) if found is None else found
    except BaseException:
        shop.registry.discard(artifacts)
        raise
    manifest = identified.manifest
    if arrival.licence:  # saying another takes nothing back
        told = together(manifest.licence, fetched.licence)
        manifest = msgspec.structs.replace(manifest, licence=told)
    return Draft(
        model=arrival.name or suggest_name(fetched.name),
        manifest=manifest,
        artifacts=tuple(ordered),
        format=identified.format,
        licence=arrival.licence or fetched.licence or manifest.licence,
        notice=fetched.notice,
        source=arrival.source,
        resolved=fetched.resolved,
        dependencies=once(needs),
        findings=findings,
    )


def _check_digest(found: str, expected: str | None) -> None:
    if expected is not None and found != expected:
        raise DigestMismatch(
            "broken.digest",
            f"expected sha256:{expected} but the bytes are sha256:{found}: nothing was kept; "
            "check the source and import again",
        )
