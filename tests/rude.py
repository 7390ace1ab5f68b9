"""Engines as a few bytes on a socket: they say anything, at any moment."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

OK = b"HTTP/1.1 200 OK\r\n"
EVENTS = OK + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""What is done with a connection."""
Say = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""What is done with a request."""


@asynccontextmanager
async def serving(speak: Speak) -> AsyncIterator[int]:
    """Serve every connection with ``speak``; yield the port."""
    tasks: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await speak(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the gateway hung up, or the test is over
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """Return a whole request that has a length."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return head + await reader.readexactly(length)


def chunk(data: bytes) -> bytes:
    """Return a chunk of a body that is sent in chunks; an empty one is the last."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def endless(begin: bytes, again: bytes) -> Speak:
    """Return an engine that says the same without an end, as fast as it can."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(begin)
        while True:
            writer.write(again * (1 + 8192 // len(again)))
            await writer.drain()

    return speak


class Rude:
    """Many of them on one port, in a thread of their own; use it as a context.

    The first segment of a URL names the one that answers there. ``asked`` counts requests.
    """

    def __init__(self, engines: dict[str, Say]) -> None:
        self.asked: Counter[str] = Counter()
        self.connections = 0
        self._engines = engines
        self._loop = asyncio.new_event_loop()
        self._port = 0
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> "Rude":
        self._thread.start()
        self._serving = serving(self._speak)
        self._port = self._wait_for(self._serving.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self._wait_for(self._serving.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def base(self, name: str, tag: str = "") -> str:
        """Return the base URL of one; other tags are other endpoints."""
        return f"http://127.0.0.1:{self._port}/{name}{'.' if tag else ''}{tag}/v1"

    def _wait_for(self, what: Awaitable[int | bool | None]) -> int:
        async def wait() -> int | bool | None:
            return await what

        return asyncio.run_coroutine_threadsafe(wait(), self._loop).result(10) or 0

    async def _speak(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            with suppress(IndexError):  # a question of control, without a body
                while True:
                    request = await read_request(reader)
                    name = request.split(b"/")[1].decode()
                    self.asked[name] += 1
                    await self._engines[name.partition(".")[0]](request, reader, writer)
                    await writer.drain()
        finally:
            self.connections -= 1
