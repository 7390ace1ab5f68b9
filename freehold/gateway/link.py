"""One HTTP/1.1 connection to an engine: a request goes out, its answer comes in pieces.

The answer is parsed where its bytes arrive, on the event loop, so that a token costs one wake-up;
whoever gives up in the middle closes the connection, which tells the engine at once.
"""

import asyncio
from collections.abc import Callable
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

HIGH_WATER = 1 << 18
"""Bytes that wait for a slow client before the engine is read no further."""
LONGEST_HEAD = 1 << 16
"""Bytes in a row of which none is body: heads, trailers, what chunks say of themselves."""
LINGER = 1.0
"""Seconds an engine has to end an answer that has said it is over."""
LONGEST_ANSWER = 1 << 29
"""Bytes of a whole answer."""


class Lost(Exception):
    """The connection failed, or what came is not HTTP; ``untouched`` if nothing came at all."""

    def __init__(self, text: str, *, untouched: bool = False) -> None:
        super().__init__(text)
        self.untouched = untouched


class Link(asyncio.Protocol):
    """For one request at a time. ``idle_since`` is in the loop's time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser = HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._pieces: list[bytes] = []
        self._waiting = 0
        self._paused = False
        self._bare = 0
        self._collects = False
        self._error: Exception | None = None
        self._ended: Callable[[], None] | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._sized = False
        self.headed = False
        self.over = True
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.reused = False
        self.idle_since = 0.0

    @property
    def usable(self) -> bool:
        """Whether another request may go out: the last one is over, and both ends stay."""
        return self.over and self.lives

    async def ask(self, request: bytes, *, whole: bool) -> None:
        """Send a request; returns when the head of its answer is here, or all of it."""
        assert self._transport is not None
        self.over = self.headed = False
        self._collects = whole
        self._bare = 0
        self._transport.write(request)
        while not (self.over if self._collects else self.headed):
            await self._more()
        self._collects = False

    async def read(self) -> bytes | None:
        """Return what has come of the body; None when there is no more."""
        while not self._pieces:
            if self.over:
                return None
            await self._more()
        return self._take()

    def fail(self, error: Exception) -> None:
        """End the wait that is under way, if there is one, with an error; the link is lost.

        What came at the same moment is still taken, and nothing after that.
        """
        if self._waiter is not None:
            self._error = error
            if not self._waiter.done():
                self._waiter.set_exception(error)

    @property
    def waits(self) -> bool:
        """Whether somebody waits for the engine, or is about to take what has just come."""
        return self._waiter is not None

    @property
    def lives(self) -> bool:
        """Whether both ends stay, also if an answer is still under way."""
        return self._error is None and self._transport is not None

    def empty(self) -> None:
        """Drop what nobody took of an answer: it is no part of the next one."""
        if self._pieces:
            self._take()

    def linger(self, ended: Callable[[], None]) -> None:
        """Wait for the end of an answer of which nothing more is wanted; then call ``ended``."""
        self.empty()
        self._ended = ended
        self._lingering = self._loop.call_later(LINGER, self.close)

    def close(self) -> None:
        """Close the connection, whatever is under way."""
        if self._lingering is not None:
            self._lingering.cancel()
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    async def _more(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = waiter = self._loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None

    def _take(self) -> bytes:
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._waiting = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    def _linger_on(self) -> None:
        """Drop what still comes; tell when it is over."""
        self._pieces.clear()
        self._waiting = 0
        if self.over and self._ended is not None and self._lingering is not None:
            self._lingering.cancel()
            ended, self._ended, self._lingering = self._ended, None, None
            ended()

    def _ease(self) -> None:
        """Read no further for now, where nobody takes what has come."""
        if self._waiting > HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _lose(self, error: Lost) -> None:
        if self._error is None:
            self._error = error
        self.close()
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_exception(self._error)

    # asyncio calls these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take bytes in."""
        if self.over:
            self._lose(Lost("the engine speaks without being asked"))
            return
        before = self._waiting
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._lose(Lost(f"the engine does not speak HTTP: {error}"))
            return
        self._bare = self._bare + len(data) if self._waiting == before else 0
        if self._ended is not None:
            self._linger_on()
        elif self._bare > LONGEST_HEAD:
            self._lose(Lost("the engine's head has no end"))
        elif not self._collects:
            self._wake()
            self._ease()
        elif self._waiting > LONGEST_ANSWER:
            self._lose(Lost("the engine's answer has no end"))

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._transport = None
        if self.over:
            return
        if self.headed and not self._sized and exc is None:
            self.over = True  # a body without a length ends with its connection
            self._wake()
            return
        untouched = not self.headed and not self._bare
        self._lose(Lost("the engine closed the connection", untouched=untouched))

    # The parser calls these.

    def on_message_begin(self) -> None:
        """Begin an answer, of which there is one to a request."""
        if self.over:
            raise Lost("the engine answers twice")
        self.headers = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; trailers come too late to mean anything."""
        if not self.headed:
            self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Take note of the status; an interim answer is none."""
        self.status = status = self._parser.get_status_code()
        if status < 100:
            raise Lost("the engine's answer has no status")
        self.headed = status >= 200
        # What is wrong may have no end: whoever asked reads as much of it as they want.
        self._collects = self._collects and status <= 200
        self._sized = b"content-length" in self.headers or b"transfer-encoding" in self.headers

    def on_body(self, body: bytes) -> None:
        """Keep a piece."""
        self._pieces.append(body)
        self._waiting += len(body)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self.status < 200:
            return
        self.over = True
        self._wake()
        transport = self._transport
        if transport is not None and (
            not self._parser.should_keep_alive() or transport.get_write_buffer_size()
        ):
            self.close()
