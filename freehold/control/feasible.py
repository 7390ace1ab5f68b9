"""What could never run is refused before it is stored: by a deploy, a document, and its plan."""

from collections.abc import Collection, Iterable

from freehold.control.arrivals import chains
from freehold.control.deployments import COMPRESSED, CONVERTED, Document, ModelEntry
from freehold.errors import FreeholdError, Invalid, Missing
from freehold.models.deploy import plan
from freehold.models.deployment import Deployment, check
from freehold.models.fetch import is_held, names_file
from freehold.models.pipeline import Workshop
from freehold.models.registry import PRODUCTION, Registry
from freehold.runtime.builds import Builds
from freehold.settings import Runtime


def check_deployment(
    deployment: Deployment,
    registry: Registry,
    settings: Runtime,
    names: Collection[str],
    builds: Builds | None = None,
) -> None:
    """Raise what stands in the way of a deployment; ``names`` are those of all there will be."""
    check(deployment)
    _check_fallbacks(deployment, names)
    if deployment.model is not None:
        registry.resolve(deployment.model)
    reason = plan(deployment, registry, settings, builds).reason
    if reason is not None:
        raise Invalid("invalid.deployment", reason)


def check_document(document: Document, shop: Workshop, settings: Runtime) -> None:
    """Raise ``Invalid`` with everything in a document that could not be made so."""
    chains(document.models)
    wrong = [*_unfit(document, shop.registry, settings), *_unheld(document, shop)]
    if wrong:
        raise Invalid("invalid.document", "; ".join(wrong))


def _unfit(document: Document, registry: Registry, settings: Runtime) -> Iterable[str]:
    names = {deployment.name for deployment in document.deployments}
    for deployment in document.deployments:
        try:
            if _comes_with(document, deployment.model or "", registry):
                _check_fallbacks(deployment, names)
            else:
                check_deployment(deployment, registry, settings, names)
        except FreeholdError as error:
            stem = f"{deployment.name}: "
            yield error.message if error.message.startswith(stem) else stem + error.message


def _comes_with(document: Document, reference: str, registry: Registry) -> bool:
    """Say whether what a deployment refers to is known only once the document is applied."""
    name, _, label = reference.partition(":")
    if any((entry.model, entry.alias) == (name, label or PRODUCTION) for entry in document.aliases):
        return True
    known = set(registry.names())
    present = registry.versions(name) if name in known else []
    # An adapter also waits for what comes of its base.
    needed = {name, *(each.target for version in present for each in version.dependencies)}
    here = {version.row.digest for each in needed & known for version in registry.versions(each)}
    return any(entry.name in needed and entry.sha256 not in here for entry in document.models)


def _check_fallbacks(deployment: Deployment, names: Collection[str]) -> None:
    unknown = next((name for name in deployment.fallbacks if name not in names), None)
    if unknown is not None:
        raise Missing(
            "missing.fallback",
            f"{deployment.name}: there is no deployment {unknown!r:.80} to fall back to",
            param="fallbacks",
        )


def _unheld(document: Document, shop: Workshop) -> Iterable[str]:
    """Name the digests of files that are neither here nor where the document has them from."""
    coming = {entry.sha256 for entry in document.models}
    for entry in document.models:
        if entry.source.startswith((CONVERTED, COMPRESSED)):
            yield from _unmade(entry, coming, shop.registry)
            continue
        named = names_file(entry.source, shop.sources)
        if named is None or named.exists() or is_held(entry.sha256, shop.blobs):
            continue
        if entry.name in shop.registry.names() and any(
            version.row.digest == entry.sha256 for version in shop.registry.versions(entry.name)
        ):
            continue
        yield (
            f"{entry.name} needs the bytes of sha256:{entry.sha256}, and there is no {named}: "
            f"freehold model import FILE --name {entry.name} --sha256 {entry.sha256} brings them in"
        )


def _unmade(entry: ModelEntry, coming: Collection[str], registry: Registry) -> Iterable[str]:
    """Say what a version lacks that was made here of another: the bytes, or what they are made of.

    A conversion gives the same bytes again; a compression measures, and gives its own.
    """
    here = {version.row.digest for name in registry.names() for version in registry.versions(name)}
    if entry.sha256 in here:
        return
    if entry.source.startswith(COMPRESSED):
        yield (
            f"{entry.name} needs the bytes of sha256:{entry.sha256}, which a compression elsewhere "
            f"has made: freehold model import freehold://HOST/{entry.name}:VERSION --name "
            f"{entry.name} --sha256 {entry.sha256} brings them in"
        )
    elif entry.parent is not None and entry.parent not in here | set(coming):
        yield (
            f"{entry.name} was converted from sha256:{entry.parent}, which is neither here nor in "
            "the document: name it there with its source"
        )
