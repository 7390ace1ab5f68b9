"""One HTTP exchange: the request as we read it, and the answer as it goes out."""

import asyncio
import secrets
import time
from contextlib import suppress
from typing import Any, Protocol

import msgspec

from freehold.errors import Invalid, TooLarge

DISCARD_BYTES = 2 << 30
DISCARD_SECONDS = 10.0
DISCARD_PAUSE = 0.5


class Transport(Protocol):
    """What the server gives us to send a body with; the body ends when nobody holds it."""

    async def send_bytes(self, data: bytes) -> None:
        """Send a piece; raises when the client has gone."""
        ...


class Stream:
    """The body of an answer that is still being sent.

    The only holder of the server's object, so that ``close`` ends the answer for the client even
    where the frames of an error still refer to this one.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport: Transport | None = transport

    async def send_bytes(self, data: bytes) -> None:
        """Send a piece."""
        if self._transport is not None:
            await self._transport.send_bytes(data)

    def close(self) -> None:
        """End the body."""
        self._transport = None


class Whole(msgspec.Struct, frozen=True):
    """An answer that goes out at once."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Tail(msgspec.Struct, frozen=True):
    """The last bytes of an answer of which the rest is out already."""

    stream: Stream
    data: bytes


Last = Whole | Tail
"""What is held back until the record of the request is durable."""


class Exchange:
    """Wraps the server's scope and protocol objects (RSGI)."""

    def __init__(self, scope: Any, protocol: Any) -> None:
        self._scope = scope
        self._protocol = protocol
        self.id = new_id()
        self.stream: Stream | None = None
        self._read = False

    @property
    def method(self) -> str:
        """The HTTP method."""
        found: str = self._scope.method
        return found

    @property
    def path(self) -> str:
        """The decoded path."""
        found: str = self._scope.path
        return found

    @property
    def query(self) -> str:
        """The query string, without its question mark."""
        found: str = self._scope.query_string
        return found

    @property
    def client(self) -> str:
        """The peer's address."""
        found: str = self._scope.client
        return found

    def header(self, name: str) -> str | None:
        """Return a header of the request, by its lower-case name."""
        found: str | None = self._scope.headers.get(name)
        return found

    async def body(self, limit: int) -> bytes:
        """Read the body; over ``limit`` bytes it is refused, as early as that can be known."""
        length = self.header("content-length")
        if length is not None:
            if not length.isascii() or not length.isdigit():
                raise Invalid("invalid.content_length", "Content-Length must be a number")
            if int(length) > limit:
                raise _too_large(limit)
            self._read = True
            body: bytes = await self._protocol()
            return body
        self._read = True
        received = bytearray()
        async for chunk in self._protocol:
            received += chunk
            if len(received) > limit:
                self._read = False
                raise _too_large(limit)
        return bytes(received)

    async def discard(self) -> None:
        """Read what is left of a body that nobody wants, so that its sender gets to our answer.

        A connection closed on unread bytes is reset, and the answer lost with it. Ends when
        nothing came for a moment, or after bounds that a well-meaning client does not reach.
        """
        if self._read or self.method in ("GET", "HEAD") or self.header("expect"):
            return
        self._read = True
        left = DISCARD_BYTES
        with suppress(TimeoutError, Exception):
            async with asyncio.timeout(DISCARD_SECONDS):
                pieces = aiter(self._protocol)
                while left > 0:
                    piece = await asyncio.wait_for(anext(pieces), DISCARD_PAUSE)
                    left -= len(piece)

    async def gone(self) -> None:
        """Return when the client has hung up."""
        await self._protocol.client_disconnect()

    def open_stream(self, headers: list[tuple[str, str]]) -> Stream:
        """Send the head of a streamed answer."""
        self.stream = Stream(self._protocol.response_stream(200, headers))
        return self.stream

    async def finish(self, last: Last) -> None:
        """Send the answer, or the rest of it."""
        if isinstance(last, Tail):
            await last.stream.send_bytes(last.data)
            last.stream.close()
        else:
            if last.status >= 400:
                await self.discard()
            self._protocol.response_bytes(last.status, last.headers, last.body)


def new_id() -> str:
    """Return a request id: sortable by time, unguessable in its second half."""
    return f"req-{time.time_ns() // 1_000_000:011x}{secrets.token_hex(8)}"


def document(value: object, status: int = 200) -> Whole:
    """Return a JSON answer."""
    headers = [("content-type", "application/json")]
    return Whole(status, headers, msgspec.json.encode(value))


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        "invalid.body_too_large",
        f"the body is over {limit} bytes: send less, or raise server.body_limit",
    )
