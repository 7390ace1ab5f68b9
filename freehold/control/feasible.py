"""What could never run is refused before it is stored: by a deploy, a document, and its plan."""

from collections.abc import Collection, Iterable

from freehold.control.deployments import Document
from freehold.errors import FreeholdError, Invalid, Missing
from freehold.models.deploy import plan
from freehold.models.deployment import Deployment, check
from freehold.models.pipeline import Workshop, is_held, names_file
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
    present = registry.versions(name) if name in registry.names() else []
    here = {version.row.digest for version in present}
    return any(entry.name == name and entry.sha256 not in here for entry in document.models)


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
    for entry in document.models:
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
