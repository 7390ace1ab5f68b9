"""One HTTP exchange: the request as we read it, and the answer as it goes out."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, Protocol

import msgspec

from freehold.errors import Invalid, TooLarge, TooLate
from freehold.gateway.alarm import Deadline
from freehold.gateway.attendance import Attendance
from freehold.gateway.cors import Headers
from freehold.gateway.door import BYTES_A_SECOND, Door
from freehold.gateway.faults import OPENAI, Fault, Form

DISCARD_BYTES = 2 << 30
DISCARD_SECONDS = 10.0
DISCARD_PAUSE = 0.5


class Gone(Exception):
    """The client has hung up: nobody is there to be told anything."""


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
        """Send a piece; ``Gone`` when nobody takes it any more."""
        if self._transport is not None:
            try:
                await self._transport.send_bytes(data)
            except RuntimeError as error:
                raise Gone from error

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

    def __init__(self, scope: Any, protocol: Any, door: Door) -> None:
        self._scope = scope
        self._protocol = protocol
        self._door = door
        self.id = door.ids.request()
        self.peer: str = scope.client
        self.is_multiplexed: bool = scope.http_version == "2"
        self.stream: Stream | None = None
        self.answered = False
        self.form: Form = OPENAI
        self.broken: Callable[[Fault], bytes] = OPENAI.body
        self._read = False
        self._iterator: AsyncIterator[bytes] | None = None
        self._attendance: Attendance | None = None

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
    def http_version(self) -> str:
        """``1``, ``1.1`` or ``2``."""
        found: str = self._scope.http_version
        return found

    @property
    def length_of_url(self) -> int:
        """Bytes of path and query."""
        return len(self._scope.path) + len(self._scope.query_string)

    @property
    def is_let_go(self) -> bool:
        """Say whether it is we who end it: the process stops, and its grace is over."""
        return self._door.closing

    @property
    def client(self) -> str:
        """The client's address, with its port where it came to us itself."""
        return self._door.client(self.peer, self)

    def header(self, name: str) -> str | None:
        """Return a header of the request, by its lower-case name."""
        found: str | None = self._scope.headers.get(name)
        return found

    def headers(self, name: str) -> list[str]:
        """Return every header of a name, in their order."""
        found: list[str] = self._scope.headers.get_all(name)
        return found

    async def body(self, limit: int) -> bytes:
        """Read the body; over ``limit`` bytes it is refused, as early as that can be known.

        ``TooLate`` when it comes too slowly, ``Gone`` when its sender has left.
        """
        length = self._length()
        if length is not None and length > limit:
            raise _too_large(limit)
        self._read = True
        deadline = Deadline(self._door.alarms, self._door.body_time(length or 0))
        try:
            with deadline:
                if length is None:
                    return await self._pieces(limit, deadline)
                body: bytes = await self._protocol()
                return body
        except TimeoutError:
            raise TooLate(
                "invalid.body_too_slow", "the body did not come in time: send it faster"
            ) from None
        except RuntimeError as error:
            raise Gone from error

    def _length(self) -> int | None:
        text = self.header("content-length")
        if text is None:
            return None
        if not text.isascii() or not text.isdigit():
            raise Invalid("invalid.content_length", "Content-Length must be a number")
        return int(text)

    async def _pieces(self, limit: int, deadline: Deadline) -> bytes:
        """Read a body of unknown length.

        The server ends a body that broke off, or is malformed, like one that is whole, but with
        one empty piece more.
        """
        received, empty = bytearray(), 0
        async for piece in self._protocol:
            empty += not piece
            received += piece
            if len(received) > limit:
                self._read = False
                raise _too_large(limit)
            deadline.due += len(piece) / BYTES_A_SECOND
        if empty > 1:
            raise Invalid("invalid.body", "the body is not whole: it broke off or is malformed")
        return bytes(received)

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body piece by piece, whatever its length; ``Invalid`` when it breaks off.

        What has come by then has been yielded. ``TooLate`` when it comes too slowly.
        """
        length, received, empty = self._length(), 0, 0
        pieces = self._iterator = aiter(self._protocol)
        patience, alarms = self._door.settings.body_timeout, self._door.alarms
        deadline = Deadline(alarms, patience)
        try:
            with deadline:
                while True:
                    piece = await anext(pieces)
                    empty += not piece
                    received += len(piece)
                    if piece:
                        deadline.due = math.inf  # what is done with it is not the sender's time
                        yield piece
                    deadline.due = alarms.now + patience
        except StopAsyncIteration:
            pass
        except TimeoutError:
            raise TooLate(
                "invalid.body_too_slow", "the body did not come in time: send it faster"
            ) from None
        except RuntimeError as error:
            raise Gone from error
        self._read = True
        if empty > 1 or (length is not None and received != length):
            raise Invalid("invalid.body", "the body is not whole: it broke off or is malformed")

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
                # What ``pieces`` has begun goes on there.
                pieces = self._iterator or aiter(self._protocol)
                while left > 0:
                    piece = await asyncio.wait_for(anext(pieces), DISCARD_PAUSE)
                    left -= len(piece)

    def attend(self) -> Attendance:
        """Have the present task cancelled when the client hangs up."""
        self._attendance = Attendance(self._gone, self._door.alarms)
        return self._attendance

    async def _gone(self) -> None:
        await self._protocol.client_disconnect()

    def abandon(self) -> None:
        """Act as if the client had hung up."""
        if self._attendance is not None:
            self._attendance.leave()

    def open_stream(self, headers: Headers, broken: Callable[[Fault], bytes]) -> Stream:
        """Send the head of a streamed answer; ``broken`` writes the end of one that fails."""
        self.broken = broken
        headers = headers + self._door.answer_headers(self)
        self.stream = Stream(self._protocol.response_stream(200, headers))
        self.answered = True
        return self.stream

    def send_file(self, status: int, headers: Headers, path: str, start: int, end: int) -> None:
        """Answer with the bytes of a file from ``start`` up to, not including, ``end``."""
        headers = headers + self._door.answer_headers(self)
        self._protocol.response_file_range(status, headers, path, start, end)
        self.answered = True

    async def finish(self, last: Last) -> None:
        """Send the answer, or the rest of it."""
        if isinstance(last, Tail):
            with suppress(Gone):
                await last.stream.send_bytes(last.data)
            last.stream.close()
        else:
            if last.status >= 400:
                await self.discard()
            headers = last.headers + self._door.answer_headers(self)
            self._protocol.response_bytes(last.status, headers, last.body)
            self.answered = True


def document(value: object, status: int = 200) -> Whole:
    """Return a JSON answer."""
    headers = [("content-type", "application/json")]
    return Whole(status, headers, msgspec.json.encode(value))


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        "invalid.body_too_large",
        f"the body is over {limit} bytes: send less, or raise server.body_limit",
    )
