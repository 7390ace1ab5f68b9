"""Deployments: what shall run, as people write it, and what that means for engines."""

from decimal import Decimal
from functools import partial
from ipaddress import ip_address
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from freehold.errors import Broken, FreeholdError, Invalid
from freehold.models.manifest import memory_needed
from freehold.models.registry import Registry, Version, check_name
from freehold.runtime.builds import Builds
from freehold.runtime.engine import Launch
from freehold.runtime.pool import Desired
from freehold.settings import Runtime, check_secret_reference
from freehold.store.snapshot import Deadlines, Trust

Positive = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
Price = Annotated[float, msgspec.Meta(ge=0, le=1_000_000)]
Place = Literal["local", "site", "cloud"]
Weight = Annotated[float, msgspec.Meta(gt=0, le=1000)]
Limit = Annotated[float, msgspec.Meta(gt=0)]
LOCAL_ENGINE = "llamacpp"
REMOTE_ENGINE = "openai"


class Cache(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long whole answers are kept; with ``any`` also those that a second try would not repeat.

    Without it, only those of calls with temperature 0 or a seed, and embeddings.
    """

    seconds: Annotated[float, msgspec.Meta(gt=0)]
    any: bool = False


class Deployment(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A deployment as it stands in a document.

    ``model`` is ``NAME[:NUMBER or ALIAS]`` of the registry; or ``urls`` are OpenAI-compatible
    endpoints, one replica each, that call the model ``upstream_model`` and want the key that
    ``upstream_key`` refers to; ``task`` says what they do, chat if nothing; ``weights`` says how
    fast each is beside the others (2 is twice as fast as 1). ``upstream_ca``,
    ``upstream_certificate`` and ``upstream_certificate_key`` are PEM files: an authority of your
    own that signs the endpoints, and the client certificate they want. ``place`` is
    where data goes: ``local`` for models and for endpoints on this machine, and to be said for
    others. ``context`` in tokens,
    ``idle_unload`` and timeouts in seconds; a timeout that is not given is the settings'.
    Prices are in units of the currency for a million tokens.
    ``slots`` is how many requests a replica answers at once; an endpoint takes any number unless
    it is given. ``continues`` says how the endpoints go on with an answer that another began;
    ``hedge_ms`` asks a second replica when the first has produced nothing for so long.

    ``build`` is which llama.cpp runs it, as in the settings. ``batch`` tokens are read at once;
    ``cache_type`` is that of the key-value cache; ``flash`` fuses attention; ``draft`` is a model
    of the registry with the same vocabulary that guesses ``drafted`` tokens ahead. What is not
    given is the engine's choice; ``freehold engine tune`` finds all of them by measuring.
    """

    name: str
    model: str | None = None
    urls: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)] = ()
    upstream_model: str | None = None
    upstream_key: str | None = None
    weights: tuple[Weight, ...] = ()
    upstream_ca: str | None = None
    upstream_certificate: str | None = None
    upstream_certificate_key: str | None = None
    task: Literal["chat", "completion", "embedding", "rerank"] | None = None
    replicas: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    place: Place | None = None
    fallbacks: tuple[str, ...] = ()
    context: Positive | None = None
    slots: Positive | None = None
    threads: Positive | None = None
    idle_unload: Annotated[float, msgspec.Meta(ge=0)] | None = None
    price_in: Price = 0.0
    price_out: Price = 0.0
    cache: Cache | None = None
    connect_timeout: Limit | None = None
    headers_timeout: Limit | None = None
    first_token_timeout: Limit | None = None
    token_timeout: Limit | None = None
    total_timeout: Limit | None = None
    hedge_ms: Annotated[int, msgspec.Meta(ge=0)] | None = None
    continues: Literal["prefill", "final_message"] | None = None
    build: str | None = None
    batch: Annotated[int, msgspec.Meta(ge=32, le=8192)] | None = None
    cache_type: Literal["f16", "q8_0", "q4_0"] | None = None
    flash: bool | None = None
    draft: str | None = None
    drafted: Annotated[int, msgspec.Meta(ge=1, le=64)] | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment and what it comes to now: its version, its launches, or why it cannot run."""

    deployment: Deployment
    version: Version | None = None
    desired: Desired | None = None
    reason: str | None = None
    deadlines: Deadlines = Deadlines()


def micro_units(price: float) -> int:
    """Return a price in whole micro-units."""
    return round(Decimal(str(price)) * 1_000_000)


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
    _check_endpoints(deployment)
    if deployment.upstream_key is not None:
        check_secret_reference(deployment.upstream_key)
    _check_trust(deployment)
    if deployment.place is None and not all(map(_is_here, deployment.urls)):
        raise Invalid(
            "invalid.deployment",
            f"{deployment.name}: say where the data goes that its urls are sent: place is local, "
            "site or cloud",
            param="place",
        )
    if deployment.name in deployment.fallbacks:
        raise Invalid(
            "invalid.deployment", f"{deployment.name} cannot be its own fallback", param="fallbacks"
        )


def _check_endpoints(deployment: Deployment) -> None:
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
    if deployment.weights and len(deployment.weights) != len(deployment.urls):
        raise Invalid(
            "invalid.deployment",
            f"{deployment.name}: weights are for urls, one each",
            param="weights",
        )
    if deployment.task is not None and not deployment.urls:
        raise Invalid(
            "invalid.deployment",
            f"{deployment.name}: a model of the registry says itself what its task is",
            param="task",
        )


def place_of(deployment: Deployment) -> Place:
    """Return where data goes; what nobody said of another machine is taken for the farthest."""
    here = all(map(_is_here, deployment.urls))
    return deployment.place or ("local" if here else "cloud")


def _is_here(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _check_trust(deployment: Deployment) -> None:
    named = {
        "upstream_ca": deployment.upstream_ca,
        "upstream_certificate": deployment.upstream_certificate,
        "upstream_certificate_key": deployment.upstream_certificate_key,
    }
    for field, path in named.items():
        if path is not None and not path.startswith("/"):
            raise Invalid(
                "invalid.deployment",
                f"{deployment.name}: {field} is the whole path of a PEM file",
                param=field,
            )
    if any(named.values()) and not all(url.startswith("https://") for url in deployment.urls):
        raise Invalid(
            "invalid.deployment",
            f"{deployment.name}: certificates are for endpoints at https:// only",
            param="urls",
        )
    if (deployment.upstream_certificate is None) != (deployment.upstream_certificate_key is None):
        raise Invalid(
            "invalid.deployment",
            f"{deployment.name}: upstream_certificate and upstream_certificate_key go together",
            param="upstream_certificate",
        )


def plan(
    deployment: Deployment, registry: Registry, settings: Runtime, builds: Builds | None = None
) -> Plan:
    """Work out what a deployment comes to with the registry as it is now."""
    limits = deadlines(deployment, settings)
    idle = deployment.idle_unload if deployment.idle_unload is not None else settings.idle_unload
    if deployment.model is None and not deployment.urls:
        return Plan(deployment=deployment, reason="what is stored of it is wrong: deploy it again")
    if deployment.model is None:
        weights = deployment.weights or (1.0,) * len(deployment.urls)
        launches = tuple(map(partial(_remote, deployment), deployment.urls, weights))
        return Plan(
            deployment=deployment,
            desired=Desired(deployment=deployment.name, launches=launches),
            deadlines=limits,
        )
    try:
        version = registry.resolve(deployment.model)
        launch = local_launch(deployment, version, registry, settings, builds)
    except FreeholdError as error:
        return Plan(deployment=deployment, reason=error.message)
    except (ArithmeticError, ValueError, msgspec.MsgspecError) as error:
        return Plan(deployment=deployment, reason=f"what is stored of it is wrong: {error}"[:300])
    desired = Desired(
        deployment=deployment.name, launches=(launch,) * deployment.replicas, idle_unload=idle
    )
    return Plan(deployment=deployment, version=version, desired=desired, deadlines=limits)


def deadlines(deployment: Deployment, settings: Runtime) -> Deadlines:
    """Return the deadlines of a deployment: its own, else the settings'."""

    def pick(own: float | None, common: float) -> float:
        return common if own is None else own

    # One of our engines may read a long prompt between two tokens of another request, and is killed
    # by its health check when it hangs; an endpoint has nothing but this deadline.
    local = deployment.model is not None
    token = max(settings.token_timeout, settings.first_token_timeout if local else 0.0)
    return Deadlines(
        connect=pick(deployment.connect_timeout, settings.connect_timeout),
        headers=pick(deployment.headers_timeout, settings.headers_timeout),
        first_token=pick(deployment.first_token_timeout, settings.first_token_timeout),
        token=pick(deployment.token_timeout, token),
        total=pick(deployment.total_timeout, settings.total_timeout),
    )


def local_launch(
    deployment: Deployment,
    version: Version,
    registry: Registry,
    settings: Runtime,
    builds: Builds | None,
) -> Launch:
    """Return how a replica of a version runs here; raises what stands in the way."""
    if version.damage is not None:
        name = f"{version.row.model}:{version.row.number}"
        raise Broken("broken.version", f"{name} is damaged and not loaded: {version.damage}")
    _check_runs(deployment, version)
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
    draft = _draft(deployment.draft, version, registry) if deployment.draft else None
    cache_type = deployment.cache_type or ""
    wanted_build = deployment.build or settings.build
    needed = memory_needed(manifest, version.row.bytes, context, slots, cache_type)
    if draft is not None:
        needed += memory_needed(draft.manifest, draft.row.bytes, context, slots, cache_type)
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
        bytes=needed,
        native=builds.choose(wanted_build, manifest.architecture) if builds else None,
        batch=deployment.batch or 0,
        cache_type=cache_type,
        flash=deployment.flash,
        draft=draft.artifacts[0].digest if draft else None,
        drafted=deployment.drafted or 0,
    )


def _draft(reference: str, version: Version, registry: Registry) -> Version:
    found = registry.resolve(reference)
    if found.damage is not None:
        raise Broken("broken.version", f"the draft {reference} is damaged: {found.damage}")
    ours, its = version.manifest.tokenizer, found.manifest.tokenizer
    if ours is None or its is None or ours.sha256 != its.sha256:
        raise Invalid(
            "invalid.draft",
            f"{reference} has another vocabulary than {version.row.model}: it cannot guess for it",
            param="draft",
        )
    return found


def _check_runs(deployment: Deployment, version: Version) -> None:
    """Refuse what the local engine cannot load: adapters are loaded over their base only."""
    row, manifest = version.row, version.manifest
    if manifest.adapter is not None:
        base = manifest.base_models[0] if manifest.base_models else "a model it does not name"
        raise Invalid(
            "invalid.adapter",
            f"{deployment.name}: {row.model}:{row.number} is an adapter for {base}, and no model: "
            "deploy its base",
            param="model",
        )
    if row.format != "gguf":
        raise Invalid(
            "invalid.format",
            f"{deployment.name}: {row.model}:{row.number} is {row.format}, and the engine here "
            "runs GGUF: convert it first",
            param="model",
        )


def _remote(deployment: Deployment, url: str, weight: float) -> Launch:
    return Launch(
        deployment=deployment.name,
        engine=REMOTE_ENGINE,
        model=deployment.upstream_model or deployment.name,
        task=deployment.task or "chat",
        url=url,
        upstream_key=deployment.upstream_key,
        weight=weight,
        trust=_trust(deployment),
    )


def _trust(deployment: Deployment) -> Trust | None:
    found = Trust(
        deployment.upstream_ca,
        deployment.upstream_certificate,
        deployment.upstream_certificate_key,
    )
    return found if found != Trust() else None
