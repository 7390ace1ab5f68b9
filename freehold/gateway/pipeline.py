"""The path of a request: who, may they, what, and from the engines back to the client.

Read ``complete`` from top to bottom; everything else is a room entered from there. It runs inside
``recorded`` (see ``routes.py``): whatever happens, one record is durable before the last byte
leaves.
"""

from contextlib import aclosing

from freehold.gateway.allowance import rate_headers
from freehold.gateway.exchange import Exchange, Last, Tail, Whole, document
from freehold.gateway.generation import Generation
from freehold.gateway.parts import Parts
from freehold.gateway.repeat import Source, repeatable
from freehold.gateway.wire.dialect import Dialect, Writer
from freehold.identity.keys import Principal
from freehold.policy.budgets import Reservation
from freehold.policy.permissions import permit
from freehold.record.entry import Entry
from freehold.routing.choose import AUTO, choose
from freehold.store.snapshot import Route

Headers = list[tuple[str, str]]


async def complete(exchange: Exchange, dialect: Dialect, parts: Parts, entry: Entry) -> Last:
    """Answer one request for a model; returns its last bytes, still to be sent."""
    principal = identify(exchange, parts, entry)
    permit(principal, "completion:run")
    call = dialect.read(await exchange.body(parts.settings.server.body_limit))
    entry.dialect, entry.stream, entry.requested = dialect.name, call.stream, call.model
    if dialect.recall is not None:
        call = await dialect.recall(call)
    choices = choose(call.model, call.task, call.tokens, parts.follower.snapshot.routes)
    with parts.allowances.allow(principal, call, entry, choices) as allowed:
        engines = Generation(call, choices, allowed, exchange, parts)
        generation = repeatable(
            engines, call, principal.name, allowed.route, exchange, parts, entry
        )
        if call.stream:
            writer = dialect.writer(call, exchange.id)
            return await _streamed(generation, writer, exchange, allowed)
        reply = await generation.whole()
        headers = [
            *response_headers(exchange, allowed.entry),
            *rate_headers(allowed),
            ("content-type", "application/json"),
        ]
        return Whole(200, headers, dialect.render(call, reply, exchange.id))


async def _streamed(
    generation: Source, writer: Writer, exchange: Exchange, allowed: Reservation
) -> Tail:
    """Send chunks as they come; the end is returned, to be held back."""
    stream = None
    async with aclosing(generation.stream()) as batches:
        async for chunks in batches:
            if stream is None:
                headers = [
                    *response_headers(exchange, allowed.entry),
                    *rate_headers(allowed),
                    *_EVENT_STREAM,
                ]
                stream = exchange.open_stream(headers, writer.broken)
            if data := writer.write(chunks):
                await stream.send_bytes(data)
    assert stream is not None, "a stream without a chunk has failed before"
    return Tail(stream, writer.last(generation.tally))


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
    principal = parts.callers.who(
        parts.follower.snapshot.keys,
        exchange.header("authorization") or _as_bearer(exchange.header("x-api-key")),
        parts.books.clock(),
    )
    entry.principal, entry.role, entry.key = principal.name, principal.role, principal.key
    return principal


def _as_bearer(key: str | None) -> str | None:
    """Return what Anthropic's clients send as the header that all others send."""
    return f"Bearer {key}" if key else None


def response_headers(exchange: Exchange, entry: Entry) -> Headers:
    """Return the headers every answer of the data plane carries."""
    who = [
        ("x-freehold-request", entry.id),
        (exchange.form.id_header, entry.id),
        ("x-freehold-deployment", entry.deployment or ""),
    ]
    kept = [("x-freehold-cache", entry.cache)] if entry.cache else []
    return [*who, *kept]


_EVENT_STREAM = (("content-type", "text/event-stream"), ("cache-control", "no-store"))


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
