"""A connection to an engine, against servers that say anything."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from freehold.errors import Busy, EngineLost, TooSlow
from freehold.gateway.alarm import Alarms
from freehold.gateway.faults import EngineFault
from freehold.gateway.link import HIGH_WATER, LONGEST_HEAD, Link, Lost
from freehold.gateway.links import Links
from freehold.gateway.upstream import Upstream
from freehold.gateway.watch import Watch
from freehold.gateway.wire import chat
from freehold.store.snapshot import Deadlines, Target, Trust
from tests.rude import EVENTS, OK, Speak, chunk, endless, read_request, serving

HINT = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
REQUEST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"
CALL = chat.read(b'{"model":"m","messages":[{"role":"user","content":"hi"}]}')


def saying(*answers: bytes, pause: float = 0.0) -> Speak:
    """Return a server that answers every request with all of these, then closes."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n{}")
        for each in answers:
            writer.write(each)
            await writer.drain()
            await asyncio.sleep(pause)

    return speak


async def connect(port: int) -> Link:
    loop = asyncio.get_running_loop()
    _, link = await loop.create_connection(lambda: Link(loop), "127.0.0.1", port)
    return link


async def whole(speak: Speak) -> bytes:
    async with serving(speak) as port:
        link = await connect(port)
        try:
            await link.ask(REQUEST, whole=True)
            return await link.read() or b""
        finally:
            link.close()


@pytest.mark.parametrize(
    "answer",
    [
        [OK + b"content-length: 5\r\n\r\nhello"],
        [OK + b"content-length: 5\r\n\r\n", b"he", b"llo"],
        [OK + b"transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n", b"3\r\nllo\r\n0\r\n\r\n"],
        [OK + b"\r\nhel", b"lo"],
        [HINT, OK + b"content-length: 5\r\n\r\nhello"],
        [HINT + HINT, HINT, OK, b"content-length: 5\r\n\r\nhe", b"llo"],
        [OK + b"transfer-encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\n", b"x: y\r\n\r\n"],
        [OK + b"upgrade: h2c\r\nconnection: upgrade, close\r\n\r\nhello"],
        [b"HTTP/1.0 200 OK\r\n\r\nhello"],
    ],
)
async def test_a_whole_answer(answer: list[bytes]) -> None:
    assert await whole(saying(*answer, pause=0.01)) == b"hello"


@pytest.mark.parametrize(
    "answer",
    [
        [b""],
        [b"HTTP/1.1 200"],
        [OK + b"content-length: 9\r\n\r\nhello"],
        [OK + b"transfer-encoding: chunked\r\n\r\n9\r\nhello"],
        [OK + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello"],
        [OK + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\nhello"],
        [OK + b"content-length: -5\r\n\r\nhello"],
        [b"SSH-2.0-OpenSSH_9\r\n"],
        [b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nhello"],
        [OK.replace(b"\r", b"") + b"content-length: 5\n\nhello"],
        [OK + b"transfer-encoding: chunked\r\n\r\n5x\r\nhello\r\n0\r\n\r\n"],
        [OK + b"transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello\r\n0\r\n\r\n"],
        [OK + b"transfer-encoding: gzip\r\n\r\nhello"],
        [OK + b"content-length: 5\r\nx: a\r\n b\r\n\r\nhello"],
        [HINT],
        [OK.replace(b"200", b"099") + b"content-length: 1\r\n\r\nx" + OK, b"\r\nhello"],
        [OK + b"x: " + b"y" * (LONGEST_HEAD + 1), b"\r\n\r\n"],
    ],
)
async def test_what_is_no_whole_answer_is_an_error(answer: list[bytes]) -> None:
    with pytest.raises(Lost):
        await whole(saying(*answer, pause=0.01))


async def test_a_second_answer_is_never_taken_for_that_of_the_next_request() -> None:
    twice = OK + b"content-length: 1\r\n\r\na" + OK + b"content-length: 1\r\n\r\nb"
    for answer in ([twice], [OK + b"content-length: 1\r\n\r\na", b"HTTP"]):
        async with serving(saying(*answer, pause=0.02)) as port:
            link = await connect(port)
            await link.ask(REQUEST, whole=True)
            assert await link.read() == b"a"
            await asyncio.sleep(0.03)
            assert not link.usable


async def test_a_complaint_without_an_end_does_not_hold_us() -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(b"HTTP/1.1 500 No\r\n\r\n")
        while True:
            writer.write(b"x" * 1024)
            await writer.drain()

    async with serving(speak) as port:
        link = await connect(port)
        await asyncio.wait_for(link.ask(REQUEST, whole=True), 5)
        assert link.status == 500
        assert (await link.read() or b"").startswith(b"xxx")
        link.close()


async def test_a_slow_reader_slows_the_engine() -> None:
    sent = 0

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n{}")
        writer.write(OK + b"\r\n")
        for _ in range(2000):
            writer.write(b"x" * (1 << 16))
            await writer.drain()
            sent += 1 << 16

    async with serving(speak) as port:
        link = await connect(port)
        await link.ask(REQUEST, whole=False)
        await asyncio.sleep(0.5)
        assert sent < 100 * HIGH_WATER  # what the kernel holds, and no more
        received = 0
        while (data := await link.read()) is not None:
            received += len(data)
        assert received == 2000 << 16


def target(port: int, key: str | None = None) -> Target:
    url = f"http://127.0.0.1:{port}/v1"
    return Target(replica="r", url=url, key=key, model="m", streams_only=False)


def watch(**limits: float) -> Watch:
    found, loop = Deadlines(**limits), asyncio.get_running_loop()
    return Watch(found, loop.time() + found.total, loop)


def fresh() -> Upstream:
    return Upstream(Links(), Alarms(asyncio.get_running_loop()))


async def ask(upstream: Upstream, port: int, **limits: float) -> bytes:
    return await upstream.document(CALL, target(port), watch(**limits), [])


async def test_connections_are_kept_and_a_stale_one_costs_nothing() -> None:
    connections = 0

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        for _ in range(2):
            request = await read_request(reader)
            assert request.startswith(b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:")
            writer.write(OK + b"content-length: 2\r\n\r\n{}")
        if connections == 1:
            await read_request(reader)  # and closed in the very moment it is used again

    async with serving(speak) as port:
        upstream = fresh()
        for _ in range(2):
            assert await ask(upstream, port) == b"{}"
        assert connections == 1
        assert await ask(upstream, port) == b"{}"
        assert connections == 2
        upstream.close()


@pytest.mark.parametrize(("pause", "connections"), [(0.1, 1), (1.5, 2)])
async def test_a_stream_that_is_over_leaves_its_connection_usable(
    pause: float, connections: int
) -> None:
    opened = 0

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        while True:
            await read_request(reader)
            event = b"data: [DONE]\n\n"
            writer.write(OK + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n")
            writer.write(b"\r\n%x\r\n%b\r\n" % (len(event), event))
            await asyncio.sleep(pause)
            writer.write(b"0\r\n\r\n")

    async with serving(speak) as port:
        upstream = fresh()
        for _ in range(2):
            answer = await upstream.events(CALL, target(port), watch(), [])
            assert await answer.batch() is None
            answer.close()
            await asyncio.sleep(pause + 0.1)
        assert opened == connections
        upstream.close()


@pytest.mark.parametrize("more", [1, 2 * HIGH_WATER])
async def test_what_comes_after_the_end_of_a_stream_is_no_part_of_the_next_answer(
    more: int,
) -> None:
    """It comes while the client still takes the end, and then the connection is used again."""
    opened = 0

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        await read_request(reader)
        writer.write(EVENTS + chunk(b"data: 1\n\ndata: [DONE]\n\n"))
        await asyncio.sleep(0.02)
        writer.write(chunk(b"data: secret\n\n" + b":" * more) + chunk(b""))
        await read_request(reader)
        writer.write(EVENTS + chunk(b"data: 2\n\ndata: [DONE]\n\n") + chunk(b""))

    async with serving(speak) as port:
        upstream = fresh()
        for number in (b"1", b"2"):
            answer = await upstream.events(CALL, target(port), watch(headers=1), [])
            assert await answer.batch() == [number]
            await asyncio.sleep(0.1)
            answer.close()
            await asyncio.sleep(0.1)
        assert opened == 1
        upstream.close()


async def test_an_interim_answer_is_a_sign_of_life() -> None:
    """Who breaks off after it has got the request: that does not go out again by itself."""
    asked = 0

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        while True:
            await read_request(reader)
            asked += 1
            if asked > 1:
                writer.write(HINT)
                return
            writer.write(OK + b"content-length: 2\r\n\r\n{}")

    async with serving(speak) as port:
        upstream = fresh()
        assert await ask(upstream, port) == b"{}"
        with pytest.raises(EngineLost):
            await ask(upstream, port)
        assert asked == 2
        upstream.close()


@pytest.mark.parametrize(
    ("begin", "again"),
    [
        (b"", HINT),
        (OK, b"x: y\r\n"),
        (EVENTS + b"0\r\n", b"x: y\r\n"),
        (EVENTS + b"0\r\nx: ", b"y"),
        (EVENTS + b"1;", b"x"),
        (EVENTS + chunk(b"data: "), chunk(b"x" * 4096)),
    ],
)
async def test_what_has_no_end_is_given_up(begin: bytes, again: bytes) -> None:
    async with serving(endless(begin, again)) as port:
        upstream = fresh()
        with pytest.raises(EngineLost):
            await asyncio.wait_for(begin_of(upstream, port), 5)


async def begin_of(upstream: Upstream, port: int) -> list[bytes] | None:
    answer = await upstream.events(CALL, target(port), watch(), [])
    try:
        return await answer.batch()
    finally:
        answer.close()


async def test_whoever_gives_up_closes_the_connection_at_once() -> None:
    gone = asyncio.Event()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await reader.read()
        gone.set()

    async with serving(speak) as port:
        upstream = fresh()
        task = asyncio.create_task(ask(upstream, port))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(gone.wait(), 1)
        with pytest.raises(TooSlow) as caught:
            await ask(upstream, port, headers=0.05)
        assert caught.value.details["deadline"] == "headers"


async def test_nobody_there() -> None:
    async with serving(saying(b"")) as port:
        pass
    with pytest.raises(EngineLost):
        await ask(Upstream(Links(), Alarms(asyncio.get_running_loop())), port)


@pytest.mark.parametrize("way", ["replaced", "closed"])
async def test_no_connection_outlives_the_way_it_was_opened_for(way: str, tmp_path: Path) -> None:
    """It is in use while its certificates are replaced, or everything is closed."""
    ended = asyncio.Event()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(EVENTS + chunk(b"data: 1\n\ndata: [DONE]\n\n") + chunk(b""))
        await reader.read()
        ended.set()

    (tmp_path / "ca").write_text("x")
    async with serving(speak) as port:
        upstream, trust = fresh(), Trust(ca=str(tmp_path / "ca"))
        trusting = msgspec.structs.replace(target(port), trust=trust)
        answer = await upstream.events(CALL, trusting, watch(), [])
        assert await answer.batch() == [b"1"]
        if way == "closed":
            upstream.close()
        else:
            (tmp_path / "ca").write_text("xy")
            other = await upstream.events(CALL, trusting, watch(), [])
            other.close()
        answer.close()
        await asyncio.wait_for(ended.wait(), 2)
        upstream.close()


async def test_connections_to_engines_that_are_no_more_asked_do_not_stay() -> None:
    async with serving(saying_well) as old, serving(saying_well) as new:
        links = Links()
        upstream = Upstream(links, Alarms(asyncio.get_running_loop()))
        for port in (old, new):
            await upstream.document(CALL, target(port), watch(), [])
            (link,) = links.road(target(port)).idle
            link.idle_since -= 100
        assert not links.road(target(old)).idle
        upstream.close()


async def saying_well(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(OK + b"content-length: 2\r\n\r\n{}")
    await reader.read()


@pytest.mark.parametrize("stays", [0, 1])
async def test_an_answer_that_comes_before_the_request_was_read_is_an_answer(stays: float) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 No\r\nconnection: close\r\ncontent-length: 3\r\n\r\nNo!")
        await writer.drain()
        await asyncio.sleep(stays)

    text = msgspec.Raw(msgspec.json.encode([{"role": "user", "content": "x" * (8 << 20)}]))
    long = msgspec.structs.replace(CALL, fields={"messages": text})
    async with serving(speak) as port:
        upstream = fresh()
        with pytest.raises(EngineFault) as caught:
            await upstream.document(long, target(port), watch(headers=5), [])
        assert caught.value.status == 413
        upstream.close()


async def test_no_connection_is_used_again_after_an_error() -> None:
    """It may be about the silence before a request, whose own answer comes after it."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK + b"content-length: 2\r\n\r\n{}")
        await read_request(reader)
        writer.write(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n")
        await asyncio.sleep(0.05)
        writer.write(OK + b"content-length: 4\r\n\r\nlate")
        await read_request(reader)

    async with serving(speak) as port:
        upstream = fresh()
        assert await ask(upstream, port) == b"{}"
        with pytest.raises((EngineLost, EngineFault, TooSlow, Busy)):
            await ask(upstream, port)
        assert await ask(upstream, port) == b"{}"
        upstream.close()


async def test_a_name_that_no_host_can_have() -> None:
    url = f"http://{'x' * 70}.example/v1"
    found = Target(replica="r", url=url, key=None, model="m", streams_only=False)
    with pytest.raises(EngineLost):
        await fresh().document(CALL, found, watch(), [])


@pytest.mark.parametrize("key", ["a\r\nx-evil: 1", "a b", "\N{SNOWMAN}"])
async def test_a_key_cannot_write_headers(key: str) -> None:
    with pytest.raises(EngineLost, match="no header may"):
        await fresh().document(CALL, target(9, key), watch(), [])


async def test_a_url_cannot_write_a_request() -> None:
    found = Target(
        replica="r", url="http://h:1/v1 HTTP/1.1\r\nx: y", key=None, model="m", streams_only=False
    )
    with pytest.raises(EngineLost, match="URL"):
        await fresh().document(CALL, found, watch(), [])


class Overtaken(Link):
    """Its deadline passes in the very moment in which the answer comes."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.fail(TooSlow("unavailable.total_deadline", "too late"))


async def test_what_comes_with_the_deadline_is_taken_and_nothing_after_it() -> None:
    loop = asyncio.get_running_loop()
    for end, whole in ((b"", True), (chunk(b""), False)):
        rest = chunk(b"llo") + chunk(b"")
        async with serving(saying(EVENTS + chunk(b"hello") + end, rest, pause=0.02)) as port:
            _, link = await loop.create_connection(lambda: Overtaken(loop), "127.0.0.1", port)
            if whole:
                with pytest.raises(TooSlow):
                    await link.ask(REQUEST, whole=True)
            else:
                await link.ask(REQUEST, whole=False)
                assert await link.read() == b"hello"
                assert await link.read() is None
            assert not link.usable
            link.close()
