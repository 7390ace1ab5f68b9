"""Adapters (LoRA): what they are, which base they are for, and whether they fit it."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from freehold.errors import FreeholdError, Invalid, Missing
from freehold.models.gguf import Header, read_header
from freehold.models.manifest import Manifest
from freehold.models.naming import suggest_name
from freehold.models.registry import Registry, Version
from freehold.store.blobs import Blobs
from freehold.store.versions import Dependency

_PARTS = (".lora_a", ".lora_b")


def check_fit(adapter: Header, base: Header) -> None:
    """Raise ``Invalid`` unless every matrix of an adapter has one of the base to be added to."""
    one, other = (h.metadata.get("general.architecture") for h in (adapter, base))
    if one != other:
        raise _invalid(f"it is for the architecture {one}, and its base is {other}")
    shapes = {tensor.name: tensor.shape for tensor in base.tensors}
    for name, (_, width, rows) in _pairs(adapter).items():
        if name not in shapes:
            raise _invalid(f"it changes {name!r:.80}, which its base does not have")
        if shapes[name] != (width, rows):
            raise _invalid(
                f"it changes {name!r:.80} of {rows} x {width}, which has "
                f"{' x '.join(map(str, reversed(shapes[name])))} in its base"
            )


def base_of(version: Version) -> Dependency | None:
    """Return the version that an adapter was made for."""
    return next(
        (d for d in version.dependencies if d.kind == "base" and d.target_number is not None), None
    )


def settle_base(
    manifest: Manifest, given: Sequence[Dependency], registry: Registry
) -> tuple[Dependency, ...]:
    """Return an adapter's dependencies with its base made one version of the registry.

    ``given`` is what the asker named; without it, the base that the adapter names must be known
    here by its source or name. ``Invalid`` says how to name it.
    """
    others = tuple(each for each in given if each.kind != "base")
    named = [each.target for each in given if each.kind == "base"]
    found = [registry.resolve(each) for each in named] or _known(manifest.base_models, registry)
    if len(found) != 1:
        of = f" for {manifest.base_models[0]:.100}" if manifest.base_models else ""
        raise Invalid(
            "invalid.base",
            f"this is an adapter{of}, and its base is not known here: import that, then name it by "
            "--base NAME[:VERSION]",
            param="dependencies",
        )
    base = found[0]
    if base.manifest.adapter is not None:
        raise Invalid(
            "invalid.base", f"{base.row.model} is an adapter itself, no base", param="dependencies"
        )
    pinned = Dependency(
        kind="base", target=base.row.model, target_number=base.row.number, digest=base.row.digest
    )
    return (pinned, *others)


def check_stored(adapter: Path, dependencies: Iterable[Dependency], registry: Registry,
                 blobs: Blobs) -> None:  # fmt: skip
    """Hold an adapter's file against the base it depends on, where that is GGUF."""
    for each in dependencies:
        if each.kind == "base" and each.target_number is not None:
            base = registry.version(each.target, each.target_number)
            if base.row.format == "gguf":
                check_fit(read_header(adapter), read_header(blobs.path(base.row.digest)))


def carriers(version: Version, registry: Registry) -> list[Version]:
    """Return the GGUF versions an adapter can be added to, the best first.

    Its base, and what was made from that by conversion or compression, which has its shapes.
    ``Missing`` when the base is not there, ``Invalid`` when nothing of it can be run.
    """
    base = base_of(version)
    name = f"{version.row.model}:{version.row.number}"
    if base is None:
        raise Missing("missing.base", f"{name} is an adapter without a base: import it again")
    try:
        family = registry.versions(base.target)
        pinned = registry.version(base.target, base.target_number or 0)
    except FreeholdError as error:
        text = f"{name} needs its base {base.target}:{base.target_number}, which is gone"
        raise Missing("missing.base", text) from error
    if pinned.row.digest != base.digest:
        text = f"{name} was made for other bytes than {base.target}:{base.target_number} holds"
        raise Invalid("invalid.base", text)
    wanted = f"{base.target}:{base.target_number}"
    fit = [
        each
        for each in family
        if each.row.format == "gguf"
        and each.manifest.adapter is None
        and (each.quarantine is None or not each.quarantine.is_open)
        and (each.row.number == base.target_number or wanted in registry.lineage(each))
    ]
    if not fit:
        raise Invalid(
            "invalid.base",
            f"{name} needs a GGUF version of its base: freehold model convert {wanted} makes one",
        )
    production = registry.aliases(base.target).get("production")
    return sorted(fit, key=lambda each: (each.row.number != production, -each.row.number))


def _known(names: Sequence[str], registry: Registry) -> list[Version]:
    """Return the models that an adapter may mean by its base's name."""
    found = []
    for name in names:
        short = suggest_name(name.rstrip("/").rpartition("/")[2])
        for model in registry.names():
            version = registry.versions(model)[0]
            source = version.row.source.removeprefix("hf:").partition("@")[0]
            if model == short or source == name:
                found.append(registry.resolve(model))
    return found


def _pairs(header: Header) -> dict[str, tuple[int, int, int]]:
    """Return the base's matrices that an adapter changes: rank, width and rows of the change."""
    halves: dict[str, dict[str, tuple[int, ...]]] = {}
    for tensor in header.tensors:
        stem, part = tensor.name[:-7], tensor.name[-7:]
        if part not in _PARTS or len(tensor.shape) != 2:
            raise _invalid(f"its tensor {tensor.name!r:.80} is not half of a change of a matrix")
        halves.setdefault(stem, {})[part] = tensor.shape
    found = {}
    for stem, both in halves.items():
        if len(both) != 2 or both[".lora_a"][1] != both[".lora_b"][0]:
            raise _invalid(f"its halves of {stem!r:.80} do not go together")
        found[stem] = (both[".lora_b"][0], both[".lora_a"][0], both[".lora_b"][1])
    if not found:
        raise _invalid("it changes nothing")
    return found


def _invalid(text: str) -> Invalid:
    return Invalid("invalid.adapter", f"this adapter cannot be used: {text}")
