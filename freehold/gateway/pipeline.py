"""The path of a request: who, may they, what, which deployment, which replica, the record.

Read ``complete`` from top to bottom; everything else is a room entered from there. It runs inside
``recorded`` (see ``routes.py``): whatever happens, one record is durable before the last byte
leaves.
"""

from collections.abc import AsyncIterator

import msgspec
from pyreqwest.client import Client

from freehold.errors import EngineLost, FreeholdError, TooSlow
from freehold.gateway.answer import Answer, Headers
from freehold.gateway.exchange import Exchange, Last, document
from freehold.gateway.follow import Follower
from freehold.gateway.recorded import Books
from freehold.gateway.upstream import Upstream
from freehold.gateway.wire.call import Call, Read
from freehold.identity.keys import Principal, authenticate
from freehold.policy.permissions import permit
from freehold.record.entry import Entry
from freehold.routing.choose import AUTO, choose
from freehold.runtime.leases import Leases
from freehold.settings import Settings
from freehold.store.snapshot import Route, Target


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway process works with; put together in ``app/gateway.py``."""

    settings: Settings
    pepper: bytes
    follower: Follower
    leases: Leases
    client: Client
    upstream: Upstream
    books: Books


async def complete(exchange: Exchange, read: Read, parts: Parts, entry: Entry) -> Last:
    """Answer one completion or embedding request; returns its last bytes, still to be sent."""
    principal = identify(exchange, parts, entry)
    permit(principal, "completion:run")
    call = read(await exchange.body(parts.settings.server.body_limit))
    entry.dialect, entry.stream, entry.requested = call.dialect, call.stream, call.model
    lost: FreeholdError | None = None
    async for route, target in candidates(call, exchange, parts):
        describe(entry, route, target)
        answer = Answer(parts.upstream, call, target, entry)
        try:
            with parts.leases.hold(target):
                return await answer.send(exchange, response_headers(exchange, route))
        except (EngineLost, TooSlow) as error:
            if exchange.stream is not None:  # the client has part of it: no second beginning
                raise
            lost = error
        finally:
            count(entry, answer)
    raise lost or EngineLost("unavailable.engine_lost", "no replica answers", retry_after=1)


async def list_models(exchange: Exchange, parts: Parts, entry: Entry) -> Last:
    """Answer ``GET /v1/models`` and ``/v1/models/NAME``: the deployments, and ``auto``."""
    permit(identify(exchange, parts, entry), "model:read")
    routes = parts.follower.snapshot.routes
    name = exchange.path.removeprefix("/v1/models").strip("/")
    if name and name != AUTO:
        return document(_model(choose(name, "chat", 0, routes)[0].route))
    automatic = {"id": AUTO, "object": "model", "created": 0, "owned_by": "freehold"}
    if name == AUTO:
        return document(automatic)
    data = [automatic] if routes else []
    return document({"object": "list", "data": [*data, *map(_model, routes.values())]})


def identify(exchange: Exchange, parts: Parts, entry: Entry) -> Principal:
    """Return who calls, and write it into the record."""
    principal = authenticate(
        parts.follower.snapshot.keys,
        parts.pepper,
        exchange.header("authorization"),
        parts.books.clock(),
    )
    entry.principal, entry.role, entry.key = principal.name, principal.role, principal.key
    return principal


async def candidates(
    call: Call, exchange: Exchange, parts: Parts
) -> AsyncIterator[tuple[Route, Target]]:
    """Yield replicas worth trying, best first; then, as long as the client would wait, new ones."""
    routes = parts.follower.snapshot.routes
    choices = choose(call.model, call.task, call.tokens, routes)
    first = choices[0].route
    patience = _patience(exchange.header("prefer"), parts.settings.runtime.wait_limit)
    if first.state == "idle":
        await parts.follower.wake(first.deployment)
    tried: set[Target] = set()
    for route in (choice.route for choice in choices):
        for target in parts.leases.by_load(route.targets):
            tried.add(target)
            yield route, target
    deadline = parts.books.clock() + patience
    while not tried or deadline > parts.books.clock():
        route = await parts.follower.until_ready(
            first.deployment, tried, deadline - parts.books.clock()
        )
        for target in parts.leases.by_load([t for t in route.targets if t not in tried]):
            tried.add(target)
            yield route, target


def _patience(prefer: str | None, limit: float) -> float:
    """Read ``Prefer: wait=SECONDS`` (RFC 7240): how long the client would wait for a load."""
    for part in (prefer or "").split(","):
        name, _, value = part.strip().partition("=")
        if name.lower() == "wait" and value.strip('"').isdigit():
            return min(float(value.strip('"')), limit)
    return 0.0


def describe(entry: Entry, route: Route, target: Target) -> None:
    """Write into the record which deployment, version and replica answer."""
    entry.attempts += 1
    entry.deployment, entry.replica = route.deployment, target.replica
    entry.model, entry.version, entry.digest = route.model, route.version, route.digest


def count(entry: Entry, answer: Answer) -> None:
    """Write into the record what the answer took, whole or not."""
    tally = answer.tally
    entry.tokens_in, entry.tokens_out = tally.prompt, tally.completion
    entry.tokens_cached, entry.estimated = tally.cached, tally.estimated


def response_headers(exchange: Exchange, route: Route) -> Headers:
    """Return the headers every answer of the data plane carries."""
    return [("x-freehold-request", exchange.id), ("x-freehold-deployment", route.deployment)]


def _model(route: Route) -> dict[str, object]:
    return {
        "id": route.deployment,
        "object": "model",
        "created": route.created,
        "owned_by": "freehold",
        "meta": {
            "model": route.model,
            "version": route.version,
            "digest": route.digest,
            "state": route.state,
            "context": route.context,
            "task": route.task,
        },
    }
