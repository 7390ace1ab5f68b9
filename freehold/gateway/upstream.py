"""Ask an engine: one request over HTTP, as a stream of events or as one document."""

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from pyreqwest.exceptions import ConnectTimeoutError, PyreqwestError
from pyreqwest.response import Response

from freehold.errors import EngineLost
from freehold.gateway.blame import blame, blame_error
from freehold.gateway.clients import Clients
from freehold.gateway.faults import read_engine_fault
from freehold.gateway.telemetry import trace_headers
from freehold.gateway.watch import Watch, too_slow
from freehold.gateway.wire.call import Call
from freehold.gateway.wire.sse import DONE, Events
from freehold.store.snapshot import Target

_JSON = [("content-type", "application/json")]
LONGEST_COMPLAINT = 1 << 16
"""Bytes of an error's body that are read."""


ABSENT = frozenset({404, 405, 501})
"""What an engine answers that lacks a route; where it may, that says nothing against it."""


class Upstream:
    """Sends calls to targets. Leaving an iteration early closes the connection at once.

    But one that waits for headers only once they come, or ``clients.GRACE`` after the longest
    silence allowed: the library lets go of such a request, and does not end it.

    """

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    async def events(
        self, call: Call, target: Target, watch: Watch
    ) -> AsyncGenerator[list[bytes], None]:
        """Yield the data of the engine's events as they come, in batches; ends at ``[DONE]``.

        Raises ``EngineFault`` when the engine refuses what the client asks; ``EngineLost`` when it
        cannot be reached, fails, breaks off or speaks nonsense; ``Busy`` when it has too much to
        do; ``TooSlow`` when a deadline of ``watch`` passes.
        """
        async with self._send(call, target, watch, stream=True) as response:
            await self._expect_stream(response, watch)
            watch.streaming()
            events = Events()
            read = response.body_reader.read_chunk
            while (chunk := await watch.wait(read())) is not None:
                batch = events.feed(chunk.to_bytes())
                if DONE in batch:
                    yield batch[: batch.index(DONE)]
                    return
                if batch:
                    yield batch
            if events.torn:
                raise EngineLost("unavailable.engine_cut", "the engine broke off in mid-answer")

    async def document(self, call: Call, target: Target, watch: Watch) -> bytes:
        """Return the engine's whole answer; raises as ``events`` does."""
        async with self._send(call, target, watch, stream=False) as response:
            watch.filling()
            return (await watch.wait(response.bytes())).to_bytes()

    async def close(self) -> None:
        """Close all connections."""
        await self._clients.close()

    @asynccontextmanager
    async def _send(
        self, call: Call, target: Target, watch: Watch, *, stream: bool
    ) -> AsyncIterator[Response]:
        limits = watch.limits
        request = self._clients.of(target, limits).post(target.url + call.path).headers(_JSON)
        request = request.headers(trace_headers())
        request = request.body_bytes(call.body(target.model, stream=stream))
        # The client's default would hold the first 64 KiB of an answer back: 300 tokens of silence.
        request = request.streamed_read_buffer_limit(0)
        if target.key:
            request = request.header("authorization", f"Bearer {target.key}", is_sensitive=True)
        sending = request.build_streamed()
        try:
            response = await watch.wait(sending.__aenter__())
            try:
                if response.status != 200:
                    complaint = await _read_some(response, watch)
                    if call.optional and response.status in ABSENT:
                        raise read_engine_fault(response.status, complaint)
                    wait = response.get_header("retry-after")
                    raise blame(response.status, complaint, wait, time.time())
                yield response
            finally:
                await sending.__aexit__(None, None, None)
        except ConnectTimeoutError as error:
            raise too_slow("connect", limits.connect) from error
        except PyreqwestError as error:
            raise EngineLost(
                "unavailable.engine_lost",
                "the engine went away: it is being restarted, try again",
                retry_after=1,
            ) from error

    async def _expect_stream(self, response: Response, watch: Watch) -> None:
        kind = response.get_header("content-type") or ""
        if kind.startswith("text/event-stream"):
            return
        body = await _read_some(response, watch)
        if kind.startswith("application/json") and b'"error"' in body:
            raise blame_error(body)
        raise EngineLost(
            "unavailable.engine_protocol", f"the engine answered {kind!r:.80}, not a stream"
        )


async def _read_some(response: Response, watch: Watch) -> bytes:
    """Read the beginning of a body that says what is wrong; it may have no end."""
    found = bytearray()
    while len(found) < LONGEST_COMPLAINT:
        chunk = await watch.wait(response.body_reader.read_chunk())
        if chunk is None:
            break
        found += chunk.to_bytes()
    return bytes(found)
