"""One replica asked once, by whatever it may say: only a whole answer ends well, and in time."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from freehold.errors import TooSlow
from freehold.gateway.alarm import Alarms
from freehold.gateway.attempt import Attempt
from freehold.gateway.links import Links
from freehold.gateway.upstream import Upstream
from freehold.gateway.watch import Watch
from freehold.gateway.wire import chat
from freehold.gateway.wire.dialect import Chunk, Reply
from freehold.store.snapshot import Deadlines, Route, Target
from tests.rude import OK, Speak, endless, read_request, serving

CALL = chat.read(b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}')
ROUTE = Route(deployment="d", engine="e", place="local", task="chat", state="ready")
PLAIN = OK + b"content-type: text/event-stream\r\n\r\n"
Use = Callable[[Attempt, Upstream], Awaitable[None]]


def event(data: bytes) -> bytes:
    return b"data: %b\n\n" % data


def part(inner: bytes) -> bytes:
    return event(b'{"choices":[{"index":0,%b}]}' % inner)


WORD = part(b'"delta":{"content":"x"}')
ROLE = part(b'"delta":{"role":"assistant","content":""}')
STOP = part(b'"delta":{},"finish_reason":"stop"')


async def asked(
    speak: Speak, *, stream: bool = True, streams_only: bool = False, **limits: float
) -> list[Chunk] | Reply:
    """Return all that an engine's answer comes to."""
    loop = asyncio.get_running_loop()
    found = Deadlines(**limits)
    async with serving(speak) as port:
        upstream = Upstream(Links(), Alarms(loop))
        url = f"http://127.0.0.1:{port}/v1"
        target = Target(replica="r", url=url, key=None, model="m", streams_only=streams_only)
        attempt = Attempt(CALL, ROUTE, target, Watch(found, loop.time() + found.total, loop))
        try:
            return await asyncio.wait_for(_all(attempt, upstream, stream=stream), 5)
        finally:
            attempt.close()
            upstream.close()


async def _all(attempt: Attempt, upstream: Upstream, *, stream: bool) -> list[Chunk] | Reply:
    piece = await attempt.begin(upstream, [], stream=stream)
    if isinstance(piece, Reply):
        return piece
    chunks = list(piece)
    while (more := await attempt.more()) is not None:
        chunks += more
    return chunks


def saying(*pieces: bytes, pause: float = 0.0) -> Speak:
    """Return an engine that says this, piece by piece."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    return speak


@pytest.mark.parametrize(
    ("again", "deadline"),
    [(WORD, "total"), (ROLE, "first_token"), (b": on it\n\n", "first_token")],
)
async def test_an_engine_that_never_lets_us_wait_keeps_to_its_deadlines(
    again: bytes, deadline: str
) -> None:
    with pytest.raises(TooSlow) as caught:
        await asked(endless(PLAIN, again), first_token=0.2, token=0.2, total=0.4)
    assert caught.value.details["deadline"] == deadline
