"""Every URL of a gateway, on one screen. Administration is in ``admin/routes.py``."""

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import msgspec

from freehold.errors import FreeholdError, Missing, Unavailable, WrongMethod
from freehold.gateway import counting, inference
from freehold.gateway import responses as stored
from freehold.gateway.exchange import Exchange, Last, Whole, document
from freehold.gateway.faults import OPENAI, Form, fault
from freehold.gateway.forward import forward
from freehold.gateway.metrics import show_metrics
from freehold.gateway.oci.relay import relay
from freehold.gateway.oci.routes import read_path
from freehold.gateway.parts import Parts
from freehold.gateway.pipeline import complete, list_models
from freehold.gateway.ranking import rerank
from freehold.gateway.recorded import recorded
from freehold.gateway.wire import chat, completions, embeddings, infer, messages, responses
from freehold.gateway.wire.count import Count
from freehold.gateway.wire.dialect import Dialect
from freehold.record.entry import Entry

Handler = Callable[[Exchange, Parts, Entry], Awaitable[Last]]


class Route(msgspec.Struct, frozen=True):
    """One method of a URL: the action in its record, who answers, and what for."""

    action: str
    handler: Handler
    about: str
    permission: str = "completion:run"


def _completes(dialect: Dialect) -> Handler:
    async def answer(exchange: Exchange, parts: Parts, entry: Entry) -> Last:
        return await complete(exchange, dialect, parts, entry)

    return answer


def _runs(handler: Handler, about: str) -> dict[str, Route]:
    return {"POST": Route("completion:run", handler, about)}


def _counts(count: Count, about: str) -> dict[str, Route]:
    return {"POST": Route("completion:count", counting.counted(count), about)}


def _reads(handler: Handler, about: str) -> dict[str, Route]:
    return {"GET": Route("model:read", handler, about, "model:read")}


ROUTES: dict[str, dict[str, Route]] = {
    "/v1/chat/completions": _runs(
        _completes(chat.DIALECT), "answer a conversation, streamed or not"
    ),
    "/v1/chat/completions/input_tokens": _counts(chat.COUNT, "count the tokens of a conversation"),
    "/v1/completions": _runs(_completes(completions.DIALECT), "continue a text, streamed or not"),
    "/v1/embeddings": _runs(_completes(embeddings.DIALECT), "turn texts into vectors"),
    "/v1/rerank": _runs(rerank, "order documents by their relevance to a query"),
    "/v1/messages": _runs(
        _completes(messages.DIALECT), "answer in Anthropic's Messages API, streamed or not"
    ),
    "/v1/messages/count_tokens": _counts(messages.COUNT, "count the tokens of a Messages request"),
    "/v1/responses": _runs(stored.create, "answer in the Responses API, streamed or not"),
    "/v1/responses/input_tokens": _counts(responses.COUNT, "count the tokens of an input"),
    "/v1/responses/{id}": {
        "GET": Route("response:read", stored.show, "show a stored response of one's own"),
        "DELETE": Route("response:remove", stored.remove, "delete a stored response of one's own"),
    },
    "/v1/responses/{id}/input_items": {
        "GET": Route("response:read", stored.input_items, "list what a stored response answered"),
    },
    "/v1/models": _reads(list_models, "list deployments as models"),
    "/v1/models/{name}": _reads(list_models, "show one deployment"),
    "/v2": _reads(inference.server, "Open Inference Protocol: about this server"),
    "/v2/models/{name}": _reads(inference.model, "a deployment's inputs and outputs"),
    "/v2/models/{name}/ready": _reads(inference.ready, "200 when it can be asked"),
    "/v2/models/{name}/infer": _runs(inference.infer, "turn texts into vectors"),
    "/v2/models/{name}/versions/{version}": _reads(inference.model, "the same of a version"),
    "/v2/models/{name}/versions/{version}/ready": _reads(inference.ready, "the same of a version"),
    "/v2/models/{name}/versions/{version}/infer": _runs(inference.infer, "the same of a version"),
    "/metrics": {
        "GET": Route(
            "metrics:read",
            show_metrics,
            "show the numbers of the whole house, for Prometheus",
            "metrics:read",
        )
    },
}
"""URL to method to route; a name in braces stands for one segment."""

FORMS: tuple[tuple[str, Form], ...] = (("/v1/messages", messages.FORM), ("/v2", infer.FORM))
"""How errors are worded below a path, where it is not OpenAI's way."""

_PATTERNS = [
    (re.compile(re.sub(r"\{\w+\}", "[^/]+", path)), methods)
    for path, methods in ROUTES.items()
    if "{" in path
]


def application(parts: Parts) -> Callable[[Any, Any], Awaitable[None]]:
    """Return the application that a gateway's server runs."""

    async def answer(scope: Any, protocol: Any) -> None:
        exchange = Exchange(scope, protocol, parts.door)
        parts.door.enter(exchange)
        try:
            await _answer(exchange, parts)
        finally:
            parts.door.leave(exchange)

    return answer


async def _answer(exchange: Exchange, parts: Parts) -> None:
    path = exchange.path
    found = find(path)
    route = found.get(exchange.method) if found else None
    exchange.form = _form(path)
    refusal = parts.door.refusal(exchange, exchange)
    if refusal is not None:
        await recorded(exchange, "none", partial(_refuse, refusal), parts.books)
    elif route is not None:
        await recorded(exchange, route.action, partial(route.handler, exchange, parts), parts.books)
    elif path in ("/healthz", "/readyz"):
        await exchange.finish(await _health(path, parts))
    elif path in ("/v2/health/live", "/v2/health/ready"):
        ready = parts.follower.snapshot.ready and await parts.books.journal.is_writable()
        await exchange.finish(inference.health(path, is_ready=ready))
    elif exchange.method == "OPTIONS":
        await _preflight(exchange, parts)
    elif path.startswith("/api/"):
        await _administer(exchange, parts)
    elif (operation := read_path(path)) is not None:
        await relay(exchange, operation, parts)
    else:
        error = _no_route(exchange.method, path, found)
        await recorded(exchange, "none", partial(_refuse, error), parts.books)


async def _preflight(exchange: Exchange, parts: Parts) -> None:
    try:
        headers = parts.door.preflight(exchange)
    except FreeholdError as error:
        await recorded(exchange, "none", partial(_refuse, error), parts.books)
    else:
        await exchange.finish(Whole(204, headers, b""))


def _closing(exchange: Exchange) -> Last:
    error = Unavailable("unavailable.stopping", "this gateway stops: try again", retry_after=1)
    found = fault(error, exchange.id)
    return Whole(found.status, found.headers, found.body)


def find(path: str) -> Mapping[str, Route] | None:
    """Return the methods of a URL."""
    found = ROUTES.get(path)
    if found is None:
        found = next((methods for shape, methods in _PATTERNS if shape.fullmatch(path)), None)
    return found


def _form(path: str) -> Form:
    return next((form for prefix, form in FORMS if path.startswith(prefix)), OPENAI)


async def _administer(exchange: Exchange, parts: Parts) -> None:
    try:
        last = await forward(exchange, parts)
    except FreeholdError as error:
        await recorded(exchange, "administer", partial(_refuse, error), parts.books)
    else:
        await exchange.finish(last)


async def _refuse(error: FreeholdError, entry: Entry) -> Last:
    entry.subject = error.param
    raise error


async def _health(path: str, parts: Parts) -> Last:
    snapshot, journal = parts.follower.snapshot, parts.books.journal
    if path == "/healthz":
        return document({"status": "ok"})
    if not await journal.is_writable():
        # Nothing is answered without a record: whoever sends requests shall send them elsewhere.
        return document({"status": "unrecorded", "reason": journal.trouble}, 503)
    if snapshot.ready:
        return document({"status": "ok"})
    loading = sorted(
        route.deployment for route in snapshot.routes.values() if route.state == "loading"
    )
    return document({"status": "starting", "loading": loading}, 503)


def _no_route(method: str, path: str, found: Mapping[str, Route] | None) -> FreeholdError:
    if found is not None:
        takes = ", ".join(found)
        return WrongMethod("invalid.method", f"{path:.100} takes {takes}, not {method:.20}")
    return Missing("missing.route", f"there is no {path!r:.120} here: see /api/openapi.json")
