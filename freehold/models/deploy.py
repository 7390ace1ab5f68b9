"""Deployments: what shall run, as people write it, and what that means for engines."""

from typing import Annotated, Literal

import msgspec

from freehold.errors import FreeholdError, Invalid
from freehold.models.manifest import memory_needed
from freehold.models.registry import Registry, Version, check_name
from freehold.runtime.engine import Launch
from freehold.runtime.pool import Desired
from freehold.settings import Runtime, check_secret_reference

Positive = Annotated[int, msgspec.Meta(ge=1)]
LOCAL_ENGINE = "llamacpp"
REMOTE_ENGINE = "openai"


class Deployment(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A deployment as it stands in a document.

    ``model`` is ``NAME[:NUMBER or ALIAS]`` of the registry; or ``urls`` are OpenAI-compatible
    endpoints, one replica each, that call the model ``upstream_model`` and want the key that
    ``upstream_key`` refers to. ``context`` in tokens, ``idle_unload`` in seconds.
    """

    name: str
    model: str | None = None
    urls: tuple[str, ...] = ()
    upstream_model: str | None = None
    upstream_key: str | None = None
    replicas: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    place: Literal["local", "site", "cloud"] = "local"
    fallbacks: tuple[str, ...] = ()
    context: Positive | None = None
    slots: Positive | None = None
    threads: Positive | None = None
    idle_unload: Annotated[float, msgspec.Meta(ge=0)] | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment and what it comes to now: its version, its launches, or why it cannot run."""

    deployment: Deployment
    version: Version | None = None
    desired: Desired | None = None
    reason: str | None = None


def check(deployment: Deployment) -> None:
    """Raise ``Invalid`` for what no state of the registry could make right."""
    check_name(deployment.name)
    if deployment.name == "auto":
        raise Invalid("invalid.deployment", "auto is the router's own name", param="name")
    if (deployment.model is None) == (not deployment.urls):
        raise Invalid(
            "invalid.deployment",
            f"{deployment.name}: give either model (of the registry) or urls (of endpoints)",
            param="model",
        )
    for url in deployment.urls:
        if not url.startswith(("http://", "https://")) or " " in url or "@" in url:
            raise Invalid(
                "invalid.deployment",
                f"{deployment.name}: {url!r:.100} is no http(s) URL; keys go in upstream_key",
                param="urls",
            )
    if deployment.urls and deployment.replicas not in (1, len(deployment.urls)):
        raise Invalid(
            "invalid.deployment",
            f"{deployment.name}: replicas is the number of its urls",
            param="replicas",
        )
    if deployment.upstream_key is not None:
        check_secret_reference(deployment.upstream_key)
    if deployment.name in deployment.fallbacks:
        raise Invalid(
            "invalid.deployment", f"{deployment.name} cannot be its own fallback", param="fallbacks"
        )


def plan(deployment: Deployment, registry: Registry, settings: Runtime) -> Plan:
    """Work out what a deployment comes to with the registry as it is now."""
    idle = deployment.idle_unload if deployment.idle_unload is not None else settings.idle_unload
    if deployment.model is None:
        launches = tuple(_remote(deployment, url) for url in deployment.urls)
        return Plan(
            deployment=deployment,
            desired=Desired(deployment=deployment.name, launches=launches),
        )
    try:
        version = registry.resolve(deployment.model)
        launch = _local(deployment, version, settings)
    except FreeholdError as error:
        return Plan(deployment=deployment, reason=error.message)
    desired = Desired(
        deployment=deployment.name, launches=(launch,) * deployment.replicas, idle_unload=idle
    )
    return Plan(deployment=deployment, version=version, desired=desired)


def _local(deployment: Deployment, version: Version, settings: Runtime) -> Launch:
    manifest, own = version.manifest, version.settings
    wanted = deployment.context or own.context
    longest = manifest.context
    context = wanted or min(settings.context, longest or settings.context)
    if longest is not None and context > longest:
        raise Invalid(
            "invalid.context",
            f"{deployment.name}: context {context} is over the {longest} the model was trained for",
            param="context",
        )
    slots = deployment.slots or own.slots or settings.slots
    return Launch(
        deployment=deployment.name,
        engine=LOCAL_ENGINE,
        model=deployment.name,
        task=manifest.task,
        weights=version.artifacts[0].digest,
        version=version.row.number,
        context=context,
        slots=slots,
        threads=deployment.threads or own.threads or settings.threads,
        bytes=memory_needed(manifest, version.row.bytes, context, slots),
    )


def _remote(deployment: Deployment, url: str) -> Launch:
    return Launch(
        deployment=deployment.name,
        engine=REMOTE_ENGINE,
        model=deployment.upstream_model or deployment.name,
        url=url,
        upstream_key=deployment.upstream_key,
    )
