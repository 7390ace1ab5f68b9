"""An entry of a document, brought in: from its source, or made again of what it was made of."""

from typing import get_args

from freehold.control.deployments import CONVERTED, ModelEntry
from freehold.errors import DigestMismatch, Invalid, Missing
from freehold.models.conversion import Kind, convert
from freehold.models.pipeline import Arrival, Workshop
from freehold.models.registry import Registry, Version
from freehold.models.source import Progress
from freehold.store.versions import Dependency


def arrival_of(entry: ModelEntry, registry: Registry) -> Arrival:
    """Return what to import for an entry; its base is the version it names, once that is here."""
    bases = []
    if entry.base:
        found = _version(entry.base, entry.parent, registry) if entry.parent else None
        target = f"{found.row.model}:{found.row.number}" if found else entry.base
        bases.append(Dependency(kind="base", target=target))
    return Arrival(
        source=entry.source,
        name=entry.name,
        sha256=entry.sha256,
        licence=entry.licence,
        dependencies=tuple(bases),
    )


def remade(
    entry: ModelEntry, shop: Workshop, progress: Progress, now: float, by: str
) -> tuple[Version, bool]:
    """Convert what an entry was converted from, and say whether that is new. Blocks.

    ``DigestMismatch`` when other bytes come of it; they are a version all the same.
    """
    model, kind = _told(entry)
    parent = _version(model, entry.parent, shop.registry)
    if parent is None:
        raise Missing(
            "missing.version",
            f"{entry.name} was converted from sha256:{entry.parent}, and {model} has no such "
            "version: name that in the document too",
        )
    made, new = convert(parent, kind, shop, progress, now, by)
    if made.row.digest != entry.sha256:
        raise DigestMismatch(
            "broken.digest",
            f"converting {model}:{parent.row.number} gave {made.row.model}:{made.row.number} of "
            f"sha256:{made.row.digest}, and the document wants sha256:{entry.sha256}: it was made "
            "by another release of Freehold, or as another type; put this digest there",
        )
    return made, new


def _told(entry: ModelEntry) -> tuple[str, Kind | None]:
    model, _, rest = entry.source.removeprefix(CONVERTED).partition(":")
    named = rest.rpartition(":")[2]
    kind = next((each for each in get_args(Kind) if each == named), None)
    if model != entry.name:
        raise Invalid("invalid.document", f"{entry.name}: a conversion of {model} is named {model}")
    return model, kind


def _version(model: str, digest: str | None, registry: Registry) -> Version | None:
    try:
        known = registry.versions(model)
    except Missing:
        return None
    if digest is None:
        return registry.resolve(model)
    return next((each for each in known if each.row.digest == digest), None)
