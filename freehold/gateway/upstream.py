"""Ask an engine: one request over HTTP, answered by a stream of events or by one document."""

import time
from collections.abc import Sequence

from freehold.errors import EngineLost
from freehold.gateway.alarm import Alarms
from freehold.gateway.blame import blame, blame_error
from freehold.gateway.faults import read_engine_fault
from freehold.gateway.link import Link, Lost
from freehold.gateway.links import Links, Road
from freehold.gateway.watch import Watch
from freehold.gateway.wire.call import Call
from freehold.gateway.wire.sse import DONE, Events
from freehold.store.snapshot import Target

LONGEST_COMPLAINT = 1 << 16
"""Bytes of an error's body that are read."""

ABSENT = frozenset({404, 405, 501})
"""What an engine answers that lacks a route; where it may, that says nothing against it."""


Headers = Sequence[tuple[str, str]]


class Upstream:
    """Sends calls to targets. Whoever leaves early closes the connection, at any moment.

    Everything here raises ``EngineFault`` when the engine refuses what the client asks;
    ``EngineLost`` when it cannot be reached, fails, breaks off or speaks nonsense; ``Busy`` when it
    has too much to do; ``TooSlow`` when a deadline of the watch passes.
    """

    def __init__(self, links: Links, alarms: Alarms) -> None:
        self._links = links
        self._alarms = alarms

    async def document(self, call: Call, target: Target, watch: Watch, trace: Headers) -> bytes:
        """Return the engine's whole answer."""
        answer = Answer(self._links, self._alarms, watch)
        try:
            await answer.ask(call, target, trace, stream=False)
            return await answer.rest()
        finally:
            answer.close()

    async def events(self, call: Call, target: Target, watch: Watch, trace: Headers) -> "Answer":
        """Return the engine's stream once it has begun; the caller closes it."""
        answer = Answer(self._links, self._alarms, watch)
        try:
            await answer.ask(call, target, trace, stream=True)
            await answer.expect_stream()
        except BaseException:
            answer.close()
            raise
        watch.streaming()
        return answer

    def close(self) -> None:
        """Close all connections."""
        self._links.close()


class Answer:
    """One answer on its way. ``close`` must be called; it keeps or ends the connection."""

    def __init__(self, links: Links, alarms: Alarms, watch: Watch) -> None:
        self._links = links
        self._alarms = alarms
        self._watch = watch
        self._road: Road | None = None
        self._link: Link | None = None
        self._events = Events()
        self._done = False

    async def ask(self, call: Call, target: Target, trace: Headers, *, stream: bool) -> None:
        """Send the call; returns when the engine has accepted it, or answered whole."""
        road = self._road = self._links.road(target)
        body = call.body(target.model, stream=stream, sets=target.sets)
        lines = b"content-length: %d\r\n" % len(body)
        for name, value in trace:
            lines += f"{name}: {value}\r\n".encode()
        request = b"%b%b\r\n%b" % (road.head(call.path), lines, body)
        self._alarms.set(self._watch)
        link = await self._send(road, request, whole=not stream, fresh=False)
        if link.status != 200:
            complaint = await self._some()
            if call.optional and link.status in ABSENT:
                raise read_engine_fault(link.status, complaint)
            wait = link.headers.get(b"retry-after")
            said = wait.decode("latin-1") if wait is not None else None
            raise blame(link.status, complaint, said, time.time())

    async def expect_stream(self) -> None:
        """Raise unless what comes are events."""
        assert self._link is not None
        kind = self._link.headers.get(b"content-type", b"").decode("latin-1")
        if kind.lower().startswith("text/event-stream"):
            return
        body = await self._some()
        if kind.startswith("application/json") and b'"error"' in body:
            raise blame_error(body)
        raise EngineLost(
            "unavailable.engine_protocol", f"the engine answered {kind!r:.80}, not a stream"
        )

    async def batch(self) -> list[bytes] | None:
        """Return the data of the events that have come; None at ``[DONE]`` and at the end."""
        while not self._done and (data := await self._piece()) is not None:
            batch = self._events.feed(data)
            if DONE in batch:
                self._done = True
                batch = batch[: batch.index(DONE)]
            if batch:
                return batch
        if not self._done and self._events.torn:
            raise EngineLost("unavailable.engine_cut", "the engine broke off in mid-answer")
        return None

    async def rest(self) -> bytes:
        """Return what is left of the body."""
        return await self._piece() or b""

    def close(self) -> None:
        """Let go of the connection."""
        self._alarms.clear(self._watch)
        self._watch.on = None
        link, self._link = self._link, None
        if link is not None and self._road is not None:
            self._links.give(self._road, link, done=self._done)

    async def _send(self, road: Road, request: bytes, *, whole: bool, fresh: bool) -> Link:
        link = self._link = await self._links.take(road, self._watch, fresh=fresh)
        self._watch.on = link
        try:
            await link.ask(request, whole=whole)
            return link
        except Lost as error:
            link.close()
            # An engine may close a connection at rest in the moment in which we use it.
            if error.untouched and link.reused:
                return await self._send(road, request, whole=whole, fresh=True)
            raise _gone() from error

    async def _piece(self) -> bytes | None:
        assert self._link is not None
        try:
            return await self._link.read()
        except Lost as error:
            raise _gone() from error

    async def _some(self) -> bytes:
        """Read the beginning of a body that says what is wrong; it may have no end."""
        found = b""
        while len(found) < LONGEST_COMPLAINT and (data := await self._piece()) is not None:
            found += data
        return found[:LONGEST_COMPLAINT]


def _gone() -> EngineLost:
    return EngineLost(
        "unavailable.engine_lost",
        "the engine went away: it is being restarted, try again",
        retry_after=1,
    )
