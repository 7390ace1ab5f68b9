"""The application of the control process: administration, and what gateways ask."""

import hmac
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from freehold.control.control import Control
from freehold.errors import Invalid, Unauthenticated
from freehold.gateway.admin.ask import Ask, read_query
from freehold.gateway.admin.openapi import describe
from freehold.gateway.admin.routes import find
from freehold.gateway.exchange import Exchange, Last, Whole, document
from freehold.gateway.faults import fault
from freehold.gateway.follow import HOLD, Question
from freehold.gateway.forward import CLIENT, PROOF
from freehold.gateway.recorded import Books, recorded
from freehold.identity.keys import authenticate
from freehold.policy.permissions import permit
from freehold.record.entry import Entry


def application(control: Control, pepper: bytes, books: Books) -> Callable[[Any, Any], Any]:
    """Return the application that control's server runs."""

    async def answer(scope: Any, protocol: Any) -> None:
        exchange = Exchange(scope, protocol)
        if exchange.path.startswith("/internal/"):
            await exchange.finish(await _internal(exchange, control))
        else:
            work = partial(_administer, exchange, control, pepper)
            await recorded(exchange, "administer", work, books)

    return answer


async def perform(ask: Ask, method: str, path: str, control: Control, entry: Entry) -> Last:
    """Do what is asked if the asker may; the command line without a server comes in here too."""
    route, params = find(method, path)
    entry.action, entry.subject = route.permission, f"{method} {path}"
    permit(ask.principal, route.permission)
    result = await route.handler(msgspec.structs.replace(ask, params=params), control)
    return document(result, route.status)


async def _administer(exchange: Exchange, control: Control, pepper: bytes, entry: Entry) -> Last:
    if exchange.header(PROOF) is not None and _proven(exchange.header(PROOF), control):
        entry.client = exchange.header(CLIENT) or entry.client
    entry.subject = f"{exchange.method} {exchange.path[:200]}"
    principal = authenticate(
        control.grants, pepper, exchange.header("authorization"), control.clock()
    )
    entry.principal, entry.role, entry.key = principal.name, principal.role, principal.key
    if (exchange.method, exchange.path) == ("GET", "/api/openapi.json"):
        return document(describe())
    body = await exchange.body(control.settings.server.body_limit)
    ask = Ask(principal=principal, params={}, query=read_query(exchange.query), body=body)
    last = await perform(ask, exchange.method, exchange.path, control, entry)
    assert isinstance(last, Whole)
    return Whole(last.status, [*last.headers, ("x-freehold-request", exchange.id)], last.body)


async def _internal(exchange: Exchange, control: Control) -> Last:
    scheme, _, secret = (exchange.header("authorization") or "").partition(" ")
    if scheme != "Bearer" or not _proven(secret, control):
        error = Unauthenticated("unauthenticated.internal", "this is for gateways only")
        refused = fault(error, exchange.id)
        return Whole(refused.status, refused.headers, refused.body)
    body = await exchange.body(1 << 20)
    if exchange.path == "/internal/follow":
        return await _follow(body, control)
    if exchange.path.startswith("/internal/wake/"):
        control.pool.wake(exchange.path.removeprefix("/internal/wake/"))
        control.reconcile()
        return Whole(204, [], b"")
    return Whole(404, [], b"")


async def _follow(body: bytes, control: Control) -> Last:
    try:
        question = msgspec.json.decode(body, type=Question)
    except msgspec.DecodeError as error:
        refused = fault(Invalid("invalid.request", str(error)), "")
        return Whole(refused.status, refused.headers, refused.body)
    snapshot = await control.publisher.answer(
        question.gateway, question.revision, question.inflight, question.used, HOLD
    )
    return document(snapshot) if snapshot is not None else Whole(204, [], b"")


def _proven(secret: str | None, control: Control) -> bool:
    return bool(control.secret) and hmac.compare_digest(
        (secret or "").encode("utf-8", "replace"), control.secret.encode()
    )
