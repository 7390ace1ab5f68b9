"""The application of the control process: administration, and what gateways ask."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from freehold.control.control import Control
from freehold.control.jobs import Job
from freehold.control.outcomes import ASKING, about
from freehold.errors import FreeholdError, Invalid, Missing, Unauthenticated
from freehold.gateway.admin.ask import Ask, read_query
from freehold.gateway.admin.looks import Looks
from freehold.gateway.admin.openapi import describe
from freehold.gateway.admin.registry import Request
from freehold.gateway.admin.routes import find
from freehold.gateway.door import Door
from freehold.gateway.exchange import Exchange, Last, Whole, document
from freehold.gateway.faults import fault
from freehold.gateway.follow import HOLD, Question
from freehold.gateway.forward import CLIENT
from freehold.gateway.oci.routes import FORM, read_path
from freehold.gateway.proof import NONCE, PROOF, Challenge
from freehold.gateway.recorded import Books, recorded
from freehold.identity.keys import authenticate
from freehold.policy.permissions import permit
from freehold.record.entry import Entry


def application(
    control: Control, pepper: bytes, books: Books, door: Door
) -> Callable[[Any, Any], Any]:
    """Return the application that control's server runs."""
    looks = Looks(time.monotonic)

    async def answer(scope: Any, protocol: Any) -> None:
        exchange = Exchange(scope, protocol, door)
        door.enter(exchange)
        try:
            if exchange.path.startswith("/internal/"):
                await exchange.finish(await _internal(exchange, control))
            elif exchange.path.startswith("/v2/"):
                work = partial(_registry, exchange, control, pepper)
                await recorded(exchange, "repository:read", work, books)
            else:
                work = partial(_administer, exchange, control, pepper)
                follows = exchange.method == "GET" and "wait" in exchange.query
                await recorded(exchange, "administer", work, books, looks if follows else None)
        finally:
            door.leave(exchange)

    return answer


async def perform(ask: Ask, method: str, path: str, control: Control, entry: Entry) -> Last:
    """Do what is asked if the asker may; the command line without a server comes in here too."""
    route, params = find(method, path)
    entry.action, entry.subject = route.permission, f"{method} {path}"
    permit(ask.principal, route.permission)
    ASKING.set(entry)
    result = await route.handler(msgspec.structs.replace(ask, params=params, entry=entry), control)
    if isinstance(result, Job) and method != "GET":
        entry.subject = about(result)
    return document(result, route.status)


async def _administer(exchange: Exchange, control: Control, pepper: bytes, entry: Entry) -> Last:
    client = exchange.header(CLIENT)
    if client is not None:
        own = _challenge(exchange, control)
        if own.holds(exchange.header(PROOF), own.ask(client.encode("utf-8", "replace"))):
            entry.client = client
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


async def _registry(exchange: Exchange, control: Control, pepper: bytes, entry: Entry) -> Last:
    """Answer a gateway about the registry; nobody else is told where files lie."""
    client, own = exchange.header(CLIENT), _challenge(exchange, control)
    operation = read_path(exchange.path)
    proved = client is not None and own.holds(
        exchange.header(PROOF), own.ask(client.encode("utf-8", "replace"))
    )
    if not proved or operation is None:
        raise Missing("missing.route", "the registry is served by gateways")
    assert client is not None
    entry.client = client
    ASKING.set(entry)
    try:
        return await Request(exchange, operation, control).answer(entry, pepper)
    except FreeholdError:
        exchange.form = FORM
        raise


async def _internal(exchange: Exchange, control: Control) -> Last:
    own = _challenge(exchange, control)
    body = await exchange.body(1 << 20)
    if not own.holds(exchange.header(PROOF), own.ask(exchange.path.encode(), body)):
        error = Unauthenticated("unauthenticated.internal", "this is for gateways only")
        refused = fault(error, exchange.id)
        return Whole(refused.status, refused.headers, refused.body)
    last = await _serve(exchange.path, body, control)
    return Whole(last.status, [*last.headers, (PROOF, own.answer(last.body))], last.body)


async def _serve(path: str, body: bytes, control: Control) -> Whole:
    if path == "/internal/follow":
        return await _follow(body, control)
    if path.startswith("/internal/wake/"):
        control.wake(path.removeprefix("/internal/wake/"))
        control.reconcile()
        return Whole(204, [], b"")
    return Whole(404, [], b"")


async def _follow(body: bytes, control: Control) -> Whole:
    try:
        question = msgspec.json.decode(body, type=Question)
    except msgspec.DecodeError as error:
        refused = fault(Invalid("invalid.request", str(error)), "")
        return Whole(refused.status, refused.headers, refused.body)
    snapshot = await control.publisher.answer(
        question.gateway,
        question.revision,
        question.inflight,
        question.used,
        HOLD,
        question.door,
    )
    return document(snapshot) if snapshot is not None else Whole(204, [], b"")


def _challenge(exchange: Exchange, control: Control) -> Challenge:
    return Challenge(control.secret, exchange.header(NONCE) or "")
