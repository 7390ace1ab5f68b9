"""Ask an engine: one request over HTTP, as a stream of events or as one document."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import PyreqwestError, RequestTimeoutError
from pyreqwest.response import Response

from freehold.errors import EngineLost, TooSlow
from freehold.gateway.faults import read_engine_fault
from freehold.gateway.wire.call import Call
from freehold.gateway.wire.sse import DONE, Events
from freehold.settings import Runtime
from freehold.store.snapshot import Target

_JSON = [("content-type", "application/json")]


def open_client(settings: Runtime) -> Client:
    """Return the one HTTP client of a process; it keeps connections to engines open."""
    return (
        ClientBuilder()
        .no_proxy()
        .follow_redirects(False)
        .connect_timeout(timedelta(seconds=settings.connect_timeout))
        .read_timeout(timedelta(seconds=settings.read_timeout))
        .build()
    )


class Upstream:
    """Sends calls to targets. Leaving an iteration early closes the connection at once."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def events(self, call: Call, target: Target) -> AsyncGenerator[list[bytes], None]:
        """Yield the data of the engine's events as they come, in batches; ends at ``[DONE]``.

        Raises ``EngineFault`` when the engine refuses the request, ``EngineLost`` when it cannot
        be reached, fails, breaks off or speaks nonsense, ``TooSlow`` when it stays silent.
        """
        async with self._send(call, target, stream=True) as response:
            kind = response.get_header("content-type") or ""
            if not kind.startswith("text/event-stream"):
                raise EngineLost(
                    "unavailable.engine_protocol", f"the engine answered {kind!r:.80}, not a stream"
                )
            events = Events()
            while (chunk := await response.body_reader.read_chunk()) is not None:
                batch = events.feed(chunk.to_bytes())
                if DONE in batch:
                    yield batch[: batch.index(DONE)]
                    return
                if batch:
                    yield batch
            if events.torn:
                raise EngineLost("unavailable.engine_cut", "the engine broke off in mid-answer")

    async def document(self, call: Call, target: Target) -> bytes:
        """Return the engine's whole answer."""
        async with self._send(call, target, stream=False) as response:
            return (await response.bytes()).to_bytes()

    @asynccontextmanager
    async def _send(self, call: Call, target: Target, *, stream: bool) -> AsyncIterator[Response]:
        request = self._client.post(target.url + call.path).headers(_JSON)
        request = request.body_bytes(call.body(target.model, stream=stream))
        # The client's default would hold the first 64 KiB of an answer back: 300 tokens of silence.
        request = request.streamed_read_buffer_limit(0)
        if target.key:
            request = request.header("authorization", f"Bearer {target.key}", is_sensitive=True)
        try:
            async with request.build_streamed() as response:
                if response.status != 200:
                    body = (await response.bytes()).to_bytes()
                    if response.status >= 500 and response.status != 501:
                        raise EngineLost(
                            "unavailable.engine_error",
                            read_engine_fault(response.status, body).message,
                            retry_after=1,
                        )
                    raise read_engine_fault(response.status, body)
                yield response
        except RequestTimeoutError as error:
            raise TooSlow(
                "unavailable.engine_silent", "the engine did not answer in time", retry_after=1
            ) from error
        except PyreqwestError as error:
            raise EngineLost(
                "unavailable.engine_lost",
                "the engine went away: it is being restarted, try again",
                retry_after=1,
            ) from error
