"""A call whose answer may be kept: taken from the cache, or generated and put there."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing, suppress
from typing import Any, Protocol

import msgspec

from freehold.errors import EngineLost
from freehold.gateway.cache import Cache, Kept, control, is_repeatable
from freehold.gateway.exchange import Exchange
from freehold.gateway.parts import Parts
from freehold.gateway.wire.assemble import Assembly, decode_event
from freehold.gateway.wire.call import Call
from freehold.gateway.wire.dialect import Chunk, Reply
from freehold.gateway.wire.usage import Tally, read_usage
from freehold.record.entry import Entry
from freehold.store.snapshot import Route

_encode = msgspec.json.encode


class Source(Protocol):
    """Where an answer comes from: engines, or a cache before them."""

    @property
    def tally(self) -> Tally:
        """The counts of the answer, right at every moment."""
        ...

    @property
    def left(self) -> float:
        """Seconds until the answer must be over."""
        ...

    def stream(self) -> AsyncGenerator[list[Chunk], None]:
        """Yield the answer's chunks as they come."""
        ...

    async def whole(self) -> Reply:
        """Return the whole answer."""
        ...


def repeatable(
    source: Source,
    call: Call,
    tenant: str,
    route: Route,
    exchange: Exchange,
    parts: Parts,
    entry: Entry,
) -> Source:
    """Put the cache before a source where a deployment keeps answers and the call is of a kind.

    ``entry.cache`` says what became of it. No two tenants share an answer.
    """
    if not route.cache_seconds:
        return source
    takes, keeps = control(exchange.header("cache-control"))
    entry.cache = "bypass"
    if not keeps or not (route.cache_any or is_repeatable(call)):
        return source
    return Repeatable(source, call, tenant, route, parts.cache, entry, takes=takes)


class Repeatable:
    """Answers from the cache if it can, else from the source, and keeps what that says."""

    def __init__(
        self,
        source: Source,
        call: Call,
        tenant: str,
        route: Route,
        cache: Cache,
        entry: Entry,
        *,
        takes: bool,
    ) -> None:
        self._source = source
        self._call = call
        self._route = route
        self._cache = cache
        self._entry = entry
        self._takes = takes
        self._digest = cache.digest(tenant, entry.dialect or "", call, route)
        self._hit: Tally | None = None

    @property
    def tally(self) -> Tally:
        """The counts of the answer, at any moment."""
        return self._source.tally if self._hit is None else self._hit

    @property
    def left(self) -> float:
        """Seconds until the answer must be over."""
        return self._source.left

    async def stream(self) -> AsyncGenerator[list[Chunk], None]:
        """Yield the answer's chunks."""
        if (kept := await self._find()) is not None:
            yield chunks(msgspec.json.decode(kept.data))
            return
        said: list[bytes] = []
        with self._cache.flight(self._digest):
            async with aclosing(self._source.stream()) as batches:
                async for batch in batches:
                    said.extend(chunk.data for chunk in batch)
                    yield batch
            with suppress(EngineLost):  # what cannot be put together is not kept
                self._keep({**_assembled(said), "usage": self.tally.document()})

    async def whole(self) -> Reply:
        """Return the whole answer."""
        if (kept := await self._find()) is not None:
            return Reply(kept.data)
        with self._cache.flight(self._digest):
            reply = await self._source.whole()
            self._keep(reply.decoded())
        return reply

    async def _find(self) -> Kept | None:
        if not self._takes:
            return None
        kept, entry, route = (
            await self._cache.find(self._digest, self._source.left),
            self._entry,
            self._route,
        )
        entry.cache = "miss" if kept is None else "hit"
        if kept is None:
            return None
        entry.deployment, entry.model = route.deployment, route.model
        entry.version, entry.digest = route.version, route.digest
        self._hit = tally = _tally(self._call, kept)
        entry.tokens_in, entry.tokens_out = tally.prompt, tally.completion
        entry.tokens_cached, entry.estimated = tally.cached, tally.estimated
        entry.first_token_ms = 0.0
        return kept

    def _keep(self, document: dict[str, Any]) -> None:
        entry, route = self._entry, self._route
        if (entry.deployment, entry.version, entry.digest) != (
            route.deployment,
            route.version,
            route.digest,
        ):
            return  # a fallback said it, or another version
        usage = document["usage"]
        details = {**(usage.get("prompt_tokens_details") or {})}
        details["cached_tokens"] = usage.get("prompt_tokens", 0)
        document["usage"] = {**usage, "prompt_tokens_details": details}
        self._cache.put(
            self._digest,
            _encode(document),
            route.cache_seconds,
            estimated=self.tally.estimated,
        )


def _assembled(events: Iterable[bytes]) -> dict[str, Any]:
    assembly = Assembly()
    for data in events:
        assembly.feed(decode_event(data))
    return assembly.document()


def chunks(document: dict[str, Any]) -> list[Chunk]:
    """Return a whole answer as the events of a stream, the usage last."""
    kind = document.get("object")
    if kind == "chat.completion":
        kind = "chat.completion.chunk"
    head = {**document, "object": kind}
    head.pop("usage", None)
    found: list[Chunk] = []
    for choice in document["choices"]:
        opening, ending = _parts(choice)
        event = {**head, "choices": [opening]}
        found.append(Chunk(_encode(event), event))
        event = {**head, "choices": [ending]}
        found.append(Chunk(_encode(event), event, finished=True))
    event = {**head, "choices": []}
    return [*found, Chunk(_encode(event), event, closing=True)]


def _parts(choice: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a choice as the event that says all of it and the one that ends it."""
    opening = {**choice, "finish_reason": None}
    ending = {"index": choice.get("index", 0), "finish_reason": choice.get("finish_reason")}
    if "message" not in choice:
        return opening, {**ending, "text": ""}
    message = opening.pop("message")
    if message.get("tool_calls"):
        calls = [{"index": number, **each} for number, each in enumerate(message["tool_calls"])]
        message = {**message, "tool_calls": calls}
    return {**opening, "delta": message}, {**ending, "delta": {}}


def _tally(call: Call, kept: Kept) -> Tally:
    usage = read_usage(msgspec.json.decode(kept.data)["usage"])
    tally = Tally(call)
    if kept.estimated:
        tally.frames = usage.completion_tokens
    else:
        tally.add(usage)
    return tally
