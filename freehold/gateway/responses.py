"""Stored responses on the path of a request: continue one, keep one, show and delete them."""

import asyncio
from typing import Any
from urllib.parse import parse_qs

from freehold.errors import Invalid
from freehold.gateway.exchange import Exchange, Last, document
from freehold.gateway.parts import Parts
from freehold.gateway.pipeline import complete, identify
from freehold.gateway.wire import responses
from freehold.gateway.wire.call import Call, Fields
from freehold.gateway.wire.dialect import Dialect, Reply
from freehold.gateway.wire.message import cannot
from freehold.policy.permissions import permit
from freehold.record.entry import Entry
from freehold.store.responses import Stored

PAGE = 20
LONGEST_PAGE = 100


async def create(exchange: Exchange, parts: Parts, entry: Entry) -> Last:
    """Answer ``POST /v1/responses``; what shall be stored is, before its last byte leaves."""
    turn = _Turn(exchange, parts, entry)
    last = await complete(exchange, turn.dialect, parts, entry)
    await turn.keep()
    return last


class _Turn:
    """One response of a conversation."""

    def __init__(self, exchange: Exchange, parts: Parts, entry: Entry) -> None:
        self._parts = parts
        self._entry = entry
        self._key = exchange.id.removeprefix("req-")
        self._request: responses.Request
        self._fields: Fields
        self._items: list[dict[str, Any]]
        self._made: responses.ResponseWriter
        self.dialect = Dialect(
            name="responses",
            read=self._read,
            recall=self._recall,
            writer=self._writer,
            render=self._render,
        )

    def _read(self, body: bytes) -> Call:
        self._request, self._fields = responses.read(body)
        if self._request.store and not self._parts.settings.responses.store:
            raise cannot("store", "this server keeps no responses")
        self._items = responses.normalised(self._request.input, self._key)
        call = responses.translate(self._request, self._fields, self._items, len(body))
        self._made = responses.ResponseWriter(
            responses.resource(
                self._request, f"resp_{self._key}", int(self._entry.at), store=self._stores
            ),
            self._parts.books.clock,
        )
        return call

    async def _recall(self, call: Call) -> Call:
        """Put what was said before in front."""
        previous = self._request.previous_response_id
        if previous is None:
            return call
        chain = await asyncio.to_thread(self._parts.shelf.chain, self._owner, previous)
        before = [item for stored in chain for item in (*stored.input, *stored.response["output"])]
        items = [*before, *self._items]
        return responses.translate(self._request, self._fields, items, len(str(items)))

    def _writer(self, _call: Call, _request_id: str) -> responses.ResponseWriter:
        return self._made

    def _render(self, _call: Call, reply: Reply, _request_id: str) -> bytes:
        return self._made.render(reply)

    async def keep(self) -> None:
        """Store the response, if it shall be."""
        if not self._stores or self._made.final is None:
            return
        stored = Stored(
            response=self._made.final,
            input=self._items,
            previous=self._request.previous_response_id,
        )
        await asyncio.to_thread(self._parts.shelf.keep, self._owner, stored)

    @property
    def _stores(self) -> bool:
        return self._parts.settings.responses.store and self._request.store is not False

    @property
    def _owner(self) -> str:
        return self._entry.principal or ""


async def show(exchange: Exchange, parts: Parts, entry: Entry) -> Last:
    """Answer ``GET /v1/responses/{id}``."""
    if "true" in parse_qs(exchange.query).get("stream", ()):
        raise cannot("stream", "a stored response does not stream")
    return document((await _stored(exchange, parts, entry)).response)


async def input_items(exchange: Exchange, parts: Parts, entry: Entry) -> Last:
    """Answer ``GET /v1/responses/{id}/input_items``."""
    items = (await _stored(exchange, parts, entry)).input
    return document(_page(items, parse_qs(exchange.query)))


async def remove(exchange: Exchange, parts: Parts, entry: Entry) -> Last:
    """Answer ``DELETE /v1/responses/{id}``."""
    owner, name = _whose(exchange, parts, entry)
    await asyncio.to_thread(parts.shelf.remove, owner, name)
    return document({"id": name, "object": "response", "deleted": True})


async def _stored(exchange: Exchange, parts: Parts, entry: Entry) -> Stored:
    owner, name = _whose(exchange, parts, entry)
    return await asyncio.to_thread(parts.shelf.load, owner, name)


def _whose(exchange: Exchange, parts: Parts, entry: Entry) -> tuple[str, str]:
    principal = identify(exchange, parts, entry)
    permit(principal, "completion:run")
    entry.subject = exchange.path.split("/")[3][:100]
    return principal.name, entry.subject


def _page(items: list[dict[str, Any]], query: dict[str, list[str]]) -> dict[str, object]:
    order = query.get("order", ["desc"])[0]
    limit = query.get("limit", [str(PAGE)])[0]
    if order not in ("asc", "desc"):
        raise Invalid("invalid.request", "order is asc or desc", param="order")
    if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit) <= LONGEST_PAGE:
        raise Invalid("invalid.request", f"limit is 1 to {LONGEST_PAGE}", param="limit")
    ordered = items if order == "asc" else items[::-1]
    after = query.get("after", [""])[0]
    names = [item["id"] for item in ordered]
    start = names.index(after) + 1 if after in names else 0
    page = ordered[start : start + int(limit)]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": start + len(page) < len(ordered),
    }
