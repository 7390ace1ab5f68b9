"""Turn what an engine sends into what the client asked for, and count it on the way."""

import time
from collections.abc import Callable
from typing import Any

import msgspec

from freehold.errors import EngineLost
from freehold.gateway.exchange import Exchange, Last, Tail, Whole
from freehold.gateway.faults import read_engine_fault
from freehold.gateway.upstream import Upstream
from freehold.gateway.wire.assemble import Assembly, decode_event
from freehold.gateway.wire.call import Call
from freehold.gateway.wire.usage import Tally, Usage, read_usage
from freehold.record.entry import Entry
from freehold.store.snapshot import Target

Headers = list[tuple[str, str]]


class Answer:
    """One attempt at one target. ``tally`` is right at every moment, also when we break off."""

    def __init__(
        self,
        upstream: Upstream,
        call: Call,
        target: Target,
        entry: Entry,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._upstream = upstream
        self._call = call
        self._target = target
        self._entry = entry
        self._clock = clock
        self._begun = clock()
        self.tally = Tally(call)

    async def send(self, exchange: Exchange, headers: Headers) -> Last:
        """Send everything but the end, which is returned to be held back."""
        if self._call.stream:
            return await self._stream(exchange, headers)
        if self._target.streams_only and self._call.task != "embedding":
            return await self._assembled(headers)
        return await self._passed_on(headers)

    async def _stream(self, exchange: Exchange, headers: Headers) -> Tail:
        ending = _Ending(self.tally)
        stream = None
        async for batch in self._upstream.events(self._call, self._target):
            ready = [event for data in batch for event in ending.pass_on(data)]
            if stream is None:
                self._first()
                stream = exchange.open_stream(
                    [*headers, ("content-type", "text/event-stream"), ("cache-control", "no-store")]
                )
            if ready:
                await stream.send_bytes(b"".join(b"data: %b\n\n" % data for data in ready))
        if stream is None:
            raise EngineLost("unavailable.engine_cut", "the engine answered nothing", retry_after=1)
        events = [*ending.last(wants_usage=self._call.wants_usage), b"[DONE]"]
        return Tail(stream, b"".join(b"data: %b\n\n" % data for data in events))

    async def _assembled(self, headers: Headers) -> Whole:
        assembly = Assembly()
        async for batch in self._upstream.events(self._call, self._target):
            self._first()
            for data in batch:
                event = decode_event(data)
                _refuse_error(event, data)
                self.tally.frames += 1
                if event.get("usage"):
                    self.tally.add(read_usage(event["usage"]))
                assembly.feed(event)
        answer = {**assembly.document(), "usage": self.tally.document()}
        return Whole(200, [*headers, ("content-type", "application/json")], _encode(answer))

    async def _passed_on(self, headers: Headers) -> Whole:
        body = await self._upstream.document(self._call, self._target)
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
        if outline.usage is not None:
            self.tally.add(outline.usage)
        else:
            body = _encode({**msgspec.json.decode(body), "usage": self.tally.document()})
        return Whole(200, [*headers, ("content-type", "application/json")], body)

    def _first(self) -> None:
        if self._entry.first_token_ms is None:
            self._entry.first_token_ms = round((self._clock() - self._begun) * 1000, 3)


class _Outline(msgspec.Struct):
    """As much of an engine's answer as we must understand to pass it on."""

    choices: list[msgspec.Raw] = []
    data: list[msgspec.Raw] = []
    usage: Usage | None = None
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_OUTLINE = msgspec.json.Decoder(_Outline)
_encode = msgspec.json.encode


class _Ending:
    """Lets events through untouched, but holds back the end of the answer.

    The event that finishes the last choice and the one with the usage wait until the record is
    durable, so no client can take an unrecorded answer for a whole one.
    """

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._held: dict[str, Any] | None = None
        self._usage: dict[str, Any] | None = None

    def pass_on(self, data: bytes) -> list[bytes]:
        """Return the events that may go out now that ``data`` has come in."""
        if not _needs_a_look(data):
            self._tally.frames += 1
            return [data] if self._held is None else [*self._release(), data]
        event = decode_event(data)
        _refuse_error(event, data)
        usage = event.pop("usage", None)
        if usage:
            self._tally.add(read_usage(usage))
        choices = event.get("choices") or []
        if usage and not choices:
            self._usage = event
            return []
        self._tally.frames += 1
        out = self._release()
        if any(choice.get("finish_reason") is not None for choice in choices):
            self._held = event
        else:
            out.append(_encode(event))
        return out

    def last(self, *, wants_usage: bool) -> list[bytes]:
        """Return the end of the answer, with its usage where the client looks for it."""
        if self._held is None:
            raise EngineLost("unavailable.engine_cut", "the engine broke off in mid-answer")
        usage = self._tally.document()
        if not wants_usage:
            merged = {**self._held, **(self._usage or {})}
            return [_encode({**merged, "choices": self._held["choices"], "usage": usage})]
        closing = self._usage or {**self._held, "choices": []}
        return [_encode(self._held), _encode({**closing, "usage": usage})]

    def _release(self) -> list[bytes]:
        if self._held is None:
            return []
        held, self._held = self._held, None
        return [_encode(held)]


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
