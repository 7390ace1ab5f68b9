"""A deployment: what an operator wants to run, as it was said, and whether that can be at all."""

from decimal import Decimal
from ipaddress import ip_address
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from freehold.errors import Invalid
from freehold.models.naming import check_name
from freehold.secret import check_secret_reference

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
    ``scale`` is by how much an adapter counts, 1 as it was trained.

    ``build`` is which llama.cpp runs it, as in the settings. ``batch`` tokens are read at once;
    ``cache_type`` is that of the key-value cache; ``flash`` fuses attention; ``draft`` is a model
    of the registry with the same vocabulary that guesses ``drafted`` tokens ahead, none where it
    is empty. What is not given is as the version's launch settings say, or else the engine's
    choice; ``freehold engine tune`` finds all of them by measuring.
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
    scale: Annotated[float, msgspec.Meta(ge=0, le=16)] | None = None
    build: str | None = None
    batch: Annotated[int, msgspec.Meta(ge=32, le=8192)] | None = None
    cache_type: Literal["f16", "q8_0", "q4_0"] | None = None
    flash: bool | None = None
    draft: str | None = None
    drafted: Annotated[int, msgspec.Meta(ge=1, le=64)] | None = None


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
