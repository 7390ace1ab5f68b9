"""One HTTP exchange: the request as we read it, and the answer as it goes out."""

import asyncio
import secrets
import time
from contextlib import suppress
from typing import Protocol

import msgspec

from freehold.errors import Invalid, TooLarge

DISCARD_BYTES = 2 << 30
DISCARD_SECONDS = 10.0
DISCARD_PAUSE = 0.5


class Transport(Protocol):
    """The body of an answer that is still being sent."""

    async def send_bytes(self, data: bytes) -> None:
        """Send a piece; raises when the client has gone."""
        ...


class Whole(msgspec.Struct, frozen=True):
    """An answer that goes out at once."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Tail(msgspec.Struct, frozen=True):
    """The last bytes of an answer of which the rest is out already."""

    transport: Transport
    data: bytes


Last = Whole | Tail
"""What is held back until the record of the request is durable."""


class Exchange:
    """Wraps the server's scope and protocol objects (RSGI)."""

    def __init__(self, scope: object, protocol: object) -> None:
        self._scope = scope
        self._protocol = protocol
        self.id = new_id()
        self.transport: Transport | None = None
        self._read = False

    @property
    def method(self) -> str:
        """The HTTP method."""
        return self._scope.method  # type: ignore[attr-defined, no-any-return]

    @property
    def path(self) -> str:
        """The decoded path."""
        return self._scope.path  # type: ignore[attr-defined, no-any-return]

    @property
    def query(self) -> str:
        """The query string, without its question mark."""
        return self._scope.query_string  # type: ignore[attr-defined, no-any-return]

    @property
    def client(self) -> str:
        """The peer's address."""
        return self._scope.client  # type: ignore[attr-defined, no-any-return]

    def header(self, name: str) -> str | None:
        """Return a header of the request, by its lower-case name."""
        return self._scope.headers.get(name)  # type: ignore[attr-defined, no-any-return]

    async def body(self, limit: int) -> bytes:
        """Read the body; over ``limit`` bytes it is refused, as early as that can be known."""
        length = self.header("content-length")
        if length is not None:
            if not length.isascii() or not length.isdigit():
                raise Invalid("invalid.content_length", "Content-Length must be a number")
            if int(length) > limit:
                raise _too_large(limit)
            self._read = True
            return await self._protocol()  # type: ignore[operator, no-any-return]
        self._read = True
        received = bytearray()
        async for chunk in self._protocol:  # type: ignore[attr-defined]
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
                pieces = aiter(self._protocol)  # type: ignore[call-overload]
                while left > 0:
                    piece = await asyncio.wait_for(anext(pieces), DISCARD_PAUSE)
                    left -= len(piece)

    async def gone(self) -> None:
        """Return when the client has hung up."""
        await self._protocol.client_disconnect()  # type: ignore[attr-defined]

    def open_stream(self, headers: list[tuple[str, str]]) -> Transport:
        """Send the head of a streamed answer."""
        self.transport = self._protocol.response_stream(200, headers)  # type: ignore[attr-defined]
        assert self.transport is not None
        return self.transport

    async def finish(self, last: Last) -> None:
        """Send the answer, or the rest of it."""
        if isinstance(last, Tail):
            await last.transport.send_bytes(last.data)
        else:
            if last.status >= 400:
                await self.discard()
            self._protocol.response_bytes(  # type: ignore[attr-defined]
                last.status, last.headers, last.body
            )


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
