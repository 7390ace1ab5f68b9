"""The Open Inference Protocol (KServe V2) over the deployments there are."""

from freehold import __version__
from freehold.errors import Missing
from freehold.gateway.exchange import Exchange, Last, document
from freehold.gateway.parts import Parts
from freehold.gateway.pipeline import complete, identify
from freehold.gateway.wire.infer import INPUT, OUTPUT, Inference
from freehold.policy.permissions import permit
from freehold.record.entry import Entry
from freehold.routing.choose import choose
from freehold.store.snapshot import Route


async def server(exchange: Exchange, parts: Parts, entry: Entry) -> Last:
    """Answer ``GET /v2``."""
    permit(identify(exchange, parts, entry), "model:read")
    return document({"name": "freehold", "version": __version__, "extensions": []})


async def model(exchange: Exchange, parts: Parts, entry: Entry) -> Last:
    """Answer ``GET /v2/models/{name}``."""
    permit(identify(exchange, parts, entry), "model:read")
    route = _route(exchange, parts)
    versions = {} if route.version is None else {"versions": [str(route.version)]}
    about = {"platform": route.engine, "inputs": [INPUT], "outputs": [OUTPUT]}
    return document({"name": route.deployment, **versions, **about})


async def ready(exchange: Exchange, parts: Parts, entry: Entry) -> Last:
    """Answer ``GET /v2/models/{name}/ready``: 200 or 503. An idle model loads when it is asked."""
    permit(identify(exchange, parts, entry), "model:read")
    route = _route(exchange, parts)
    is_ready = route.state in ("ready", "idle")
    return document({"name": route.deployment, "ready": is_ready}, 200 if is_ready else 503)


async def infer(exchange: Exchange, parts: Parts, entry: Entry) -> Last:
    """Answer ``POST /v2/models/{name}/infer``."""
    permit(identify(exchange, parts, entry), "completion:run")
    route = _route(exchange, parts)
    version = None if route.version is None else str(route.version)
    return await complete(exchange, Inference(route.deployment, version).dialect, parts, entry)


def health(path: str, *, is_ready: bool) -> Last:
    """Answer ``GET /v2/health/live`` and ``/v2/health/ready``, which need no key."""
    if path == "/v2/health/live":
        return document({"live": True})
    return document({"ready": is_ready, "live": True}, 200 if is_ready else 503)


def _route(exchange: Exchange, parts: Parts) -> Route:
    """Return the deployment that the path names; a version must be the one that runs."""
    _, _, _, name, *rest = exchange.path.split("/")
    route = choose(name, "embedding", 0, parts.follower.snapshot.routes)[0].route
    if rest[:1] == ["versions"] and rest[1] != str(route.version):
        raise Missing(
            "missing.version",
            f"{route.deployment} runs {route.version or 'no version'}, not {rest[1]:.20}",
            param="version",
        )
    return route
