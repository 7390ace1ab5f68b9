"""Every URL of a gateway, on one screen. Administration is in ``admin/routes.py``."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from freehold.errors import FreeholdError, Missing, WrongMethod
from freehold.gateway.exchange import Exchange, Last, document
from freehold.gateway.forward import forward
from freehold.gateway.parts import Parts
from freehold.gateway.pipeline import complete, list_models
from freehold.gateway.recorded import recorded
from freehold.gateway.wire import chat, completions, embeddings
from freehold.gateway.wire.dialect import Dialect
from freehold.record.entry import Entry

Handler = Callable[[Exchange, Parts, Entry], Awaitable[Last]]


def _completes(dialect: Dialect) -> Handler:
    async def answer(exchange: Exchange, parts: Parts, entry: Entry) -> Last:
        return await complete(exchange, dialect, parts, entry)

    return answer


ROUTES: dict[str, tuple[str, str, Handler]] = {
    "/v1/chat/completions": ("POST", "completion:run", _completes(chat.DIALECT)),
    "/v1/completions": ("POST", "completion:run", _completes(completions.DIALECT)),
    "/v1/embeddings": ("POST", "completion:run", _completes(embeddings.DIALECT)),
    "/v1/models": ("GET", "model:read", list_models),
}
"""Path to (method, action in the record, handler). ``/v1/models/NAME`` goes with ``/v1/models``."""


def application(parts: Parts) -> Callable[[Any, Any], Awaitable[None]]:
    """Return the application that a gateway's server runs."""

    async def answer(scope: Any, protocol: Any) -> None:
        exchange = Exchange(scope, protocol)
        path = exchange.path
        found = ROUTES.get("/v1/models" if path.startswith("/v1/models/") else path)
        if found is not None and found[0] == exchange.method:
            _, action, handler = found
            await recorded(exchange, action, partial(handler, exchange, parts), parts.books)
        elif path in ("/healthz", "/readyz"):
            await exchange.finish(_health(path, parts))
        elif path.startswith("/api/"):
            await _administer(exchange, parts)
        else:
            error = _no_route(exchange.method, path, found)
            await recorded(exchange, "none", partial(_refuse, error), parts.books)

    return answer


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


def _health(path: str, parts: Parts) -> Last:
    snapshot = parts.follower.snapshot
    if path == "/healthz" or snapshot.ready:
        return document({"status": "ok"})
    loading = sorted(
        route.deployment for route in snapshot.routes.values() if route.state == "loading"
    )
    return document({"status": "starting", "loading": loading}, 503)


def _no_route(method: str, path: str, found: tuple[str, str, Handler] | None) -> FreeholdError:
    if found is not None:
        return WrongMethod("invalid.method", f"{path:.100} takes {found[0]}, not {method:.20}")
    return Missing("missing.route", f"there is no {path!r:.120} here: see /api/openapi.json")
