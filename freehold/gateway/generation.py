"""One call on its way through engines: replicas tried in turn, what comes checked and counted.

``stream`` yields chunks, ``whole`` returns one reply. Both end only with a whole answer: what an
engine breaks off, garbles or answers with an error is tried elsewhere or raised, never passed on.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import msgspec

from freehold.errors import EngineLost, FreeholdError, TooSlow
from freehold.gateway.exchange import Exchange
from freehold.gateway.faults import read_engine_fault
from freehold.gateway.parts import Parts
from freehold.gateway.wire.assemble import Assembly, decode_event
from freehold.gateway.wire.call import Call
from freehold.gateway.wire.dialect import Chunk, Reply
from freehold.gateway.wire.usage import Tally, Usage, read_usage
from freehold.record.entry import Entry
from freehold.routing.choose import choose
from freehold.store.snapshot import Route, Target

_encode = msgspec.json.encode


class Generation:
    """What becomes of one call. ``tally`` is right at every moment, also when we break off."""

    def __init__(self, call: Call, exchange: Exchange, parts: Parts, entry: Entry) -> None:
        self._call = call
        self._exchange = exchange
        self._parts = parts
        self._entry = entry
        self._begun = time.perf_counter()
        self._sent = False
        self.tally = Tally(call)

    async def stream(self) -> AsyncGenerator[list[Chunk], None]:
        """Yield the answer's chunks as they come; returns only once every choice has finished."""
        lost: FreeholdError | None = None
        async for route, target in self._candidates():
            try:
                with self._attempt(route, target):
                    async with aclosing(self._chunks(target)) as batches:
                        async for batch in batches:
                            self._sent = True
                            yield batch
                    return
            except (EngineLost, TooSlow) as error:
                if self._sent:  # the client has part of it: no second beginning
                    raise
                lost = error
        raise lost or _nobody()

    async def whole(self) -> Reply:
        """Return the whole answer."""
        lost: FreeholdError | None = None
        async for route, target in self._candidates():
            try:
                with self._attempt(route, target):
                    if target.streams_only and self._call.task != "embedding":
                        return await self._assembled(target)
                    return await self._document(target)
            except (EngineLost, TooSlow) as error:
                lost = error
        raise lost or _nobody()

    @contextmanager
    def _attempt(self, route: Route, target: Target) -> Iterator[None]:
        """Hold the replica, and write into the record who answers and what it takes."""
        entry = self._entry
        entry.attempts += 1
        entry.deployment, entry.replica = route.deployment, target.replica
        entry.model, entry.version, entry.digest = route.model, route.version, route.digest
        self.tally = Tally(self._call)
        try:
            with self._parts.leases.hold(target):
                yield
        finally:
            tally = self.tally
            entry.tokens_in, entry.tokens_out = tally.prompt, tally.completion
            entry.tokens_cached, entry.estimated = tally.cached, tally.estimated

    async def _candidates(self) -> AsyncIterator[tuple[Route, Target]]:
        """Yield replicas, best first; then, as long as the client would wait, new ones."""
        parts, call = self._parts, self._call
        routes = parts.follower.snapshot.routes
        choices = choose(call.model, call.task, call.tokens, routes)
        first = choices[0].route
        patience = _patience(self._exchange.header("prefer"), parts.settings.runtime.wait_limit)
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

    async def _chunks(self, target: Target) -> AsyncGenerator[list[Chunk], None]:
        finished = False
        async with aclosing(self._parts.upstream.events(self._call, target)) as batches:
            async for batch in batches:
                chunks = [self._read(data) for data in batch]
                finished = finished or any(chunk.finished for chunk in chunks)
                self._first()
                yield chunks
        if not finished:
            raise EngineLost(
                "unavailable.engine_cut", "the engine broke off in mid-answer", retry_after=1
            )

    async def _assembled(self, target: Target) -> Reply:
        assembly = Assembly()
        async with aclosing(self._parts.upstream.events(self._call, target)) as batches:
            async for batch in batches:
                self._first()
                for data in batch:
                    assembly.feed(self._read(data).decoded())
        return Reply(_encode({**assembly.document(), "usage": self.tally.document()}))

    async def _document(self, target: Target) -> Reply:
        body = await self._parts.upstream.document(self._call, target)
        self._first()
        try:
            outline = _OUTLINE.decode(body)
        except msgspec.DecodeError as error:
            raise EngineLost(
                "unavailable.engine_protocol", "the engine's answer is not what it should be"
            ) from error
        if outline.error is not msgspec.UNSET:
            raise read_engine_fault(502, body)
        if not outline.choices and not outline.data:
            raise EngineLost("unavailable.engine_protocol", "the engine's answer is empty")
        if outline.usage is None:
            return Reply(_encode({**msgspec.json.decode(body), "usage": self.tally.document()}))
        self.tally.add(outline.usage)
        return Reply(body)

    def _read(self, data: bytes) -> Chunk:
        """Check and count one event; decoded only where there is something to see."""
        if not _needs_a_look(data):
            self.tally.frames += 1
            return Chunk(data)
        event = decode_event(data)
        _refuse_error(event, data)
        usage = event.pop("usage", None)
        if usage:
            self.tally.add(read_usage(usage))
        choices = event.get("choices") or []
        if usage and not choices:
            return Chunk(data, event, closing=True)
        self.tally.frames += 1
        finished = any(choice.get("finish_reason") is not None for choice in choices)
        return Chunk(_encode(event), event, finished=finished)

    def _first(self) -> None:
        if self._entry.first_token_ms is None:
            self._entry.first_token_ms = round((time.perf_counter() - self._begun) * 1000, 3)


class _Outline(msgspec.Struct):
    """As much of an engine's answer as we must understand to pass it on."""

    choices: list[msgspec.Raw] = []
    data: list[msgspec.Raw] = []
    usage: Usage | None = None
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_OUTLINE = msgspec.json.Decoder(_Outline)


def _needs_a_look(data: bytes) -> bool:
    # Inside JSON strings quotes are escaped, so these bytes can only be keys.
    return (
        (b'"usage":' in data and b'"usage":null' not in data)
        or (b'"finish_reason"' in data and b'"finish_reason":null' not in data)
        or b'"error":' in data
    )


def _refuse_error(event: dict[str, Any], data: bytes) -> None:
    if event.get("error"):
        inner = event["error"]
        status = inner.get("code") if isinstance(inner, dict) else None
        raise read_engine_fault(
            status if isinstance(status, int) and 400 <= status < 600 else 502, data
        )


def _patience(prefer: str | None, limit: float) -> float:
    """Read ``Prefer: wait=SECONDS`` (RFC 7240): how long the client would wait for a load."""
    for part in (prefer or "").split(","):
        name, _, value = part.strip().partition("=")
        if name.lower() == "wait" and value.strip('"').isdigit():
            return min(float(value.strip('"')), limit)
    return 0.0


def _nobody() -> EngineLost:
    return EngineLost("unavailable.engine_lost", "no replica answers", retry_after=1)
