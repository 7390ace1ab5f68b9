"""What a model builds on: the file says it, or who brings it in."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from freehold.models.adapter import check_stored, settle_base
from freehold.models.identify import Identified
from freehold.models.manifest import Manifest
from freehold.models.registry import Registry
from freehold.store.blobs import Blobs
from freehold.store.versions import Dependency


def needs_of(
    identified: Identified,
    said: tuple[Dependency, ...],
    files: Mapping[str, Path],
    registry: Registry,
    blobs: Blobs,
) -> tuple[Dependency, ...]:
    """Return what a model builds on; an adapter on one version of the registry, which it fits."""
    manifest = identified.manifest
    if manifest.adapter is None:
        return (*_dependencies(manifest), *said)
    needs = settle_base(manifest, said, registry)
    if identified.format == "gguf":
        check_stored(files[identified.main], needs, registry, blobs)
    return needs


def once(dependencies: Sequence[Dependency]) -> tuple[Dependency, ...]:
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
