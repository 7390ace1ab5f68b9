"""One replica asked once, by whatever it may say: only a whole answer ends well, and in time."""

import asyncio

import msgspec
import pytest

from freehold.errors import EngineLost, TooSlow
from freehold.gateway.alarm import Alarms
from freehold.gateway.attempt import Attempt
from freehold.gateway.links import Links
from freehold.gateway.seam import Mismatch, Seam
from freehold.gateway.transcript import transcribe
from freehold.gateway.upstream import Upstream
from freehold.gateway.watch import Watch
from freehold.gateway.wire import chat
from freehold.gateway.wire.dialect import Chunk, Reply
from freehold.gateway.wire.sse import Events
from freehold.gateway.wire.usage import Tally, Usage
from freehold.store.snapshot import Deadlines, Route, Target
from tests.rude import OK, Speak, endless, read_request, serving

CALL = chat.read(b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}')
ROUTE = Route(deployment="d", engine="e", place="local", task="chat", state="ready")
PLAIN = OK + b"content-type: text/event-stream\r\n\r\n"


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
    [(WORD, "total"), (b": on it\n\n", "first_token")],
)
async def test_an_engine_that_never_lets_us_wait_keeps_to_its_deadlines(
    again: bytes, deadline: str
) -> None:
    with pytest.raises(TooSlow) as caught:
        await asked(endless(PLAIN, again), first_token=0.2, token=0.2, total=0.4)
    assert caught.value.details["deadline"] == deadline


async def test_an_engine_that_says_nothing_at_length_is_given_up() -> None:
    with pytest.raises(EngineLost, match="nothing at length"):
        await asked(endless(PLAIN, ROLE))


async def test_a_media_type_is_the_same_in_any_case() -> None:
    assert text_of(await asked(saying(PLAIN.replace(b"text/e", b"Text/E") + WORD + STOP))) == "x"


async def test_nothing_puts_the_end_off_once_all_is_said() -> None:
    """Here it goes on with empty events, each in time, for a second."""
    more = [event(b'{"choices":[]}')] * 20
    begun = asyncio.get_running_loop().time()
    found = await asked(saying(PLAIN + WORD + STOP, *more, pause=0.05), token=0.2)
    assert text_of(found) == "x"
    assert asyncio.get_running_loop().time() - begun < 0.6


def text_of(found: list[Chunk] | Reply) -> str:
    if isinstance(found, Reply):
        text: str = found.decoded()["choices"][0]["message"]["content"]
        return text
    choices = [choice for each in found for choice in each.decoded()["choices"]]
    assert [each.finished for each in found if not each.closing][-1]
    return "".join(choice["delta"].get("content", "") for choice in choices)


HOWEVER_BUILT = {
    "a byte order mark": "\N{BYTE ORDER MARK}".encode() + WORD + STOP,
    "lines end with CR": (WORD + STOP).replace(b"\n", b"\r"),
    "lines end with CRLF": (WORD + STOP).replace(b"\n", b"\r\n"),
    "several lines of data": WORD.replace(b"[", b"[\ndata:").replace(b"}]", b"}\ndata: ]") + STOP,
    "other fields": b": hi\n\nevent: x\nid: 1\nretry: 9\n" + WORD.replace(b": {", b":{") + STOP,
    "blank lines": b"\n\n\n" + WORD + b"\n" + STOP,
}


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("name", HOWEVER_BUILT)
def test_events_are_read_however_they_are_built_and_cut(name: str, size: int) -> None:
    events, data, found = Events(), HOWEVER_BUILT[name] + event(b"[DONE]"), []
    for at in range(0, len(data), size):
        found += events.feed(data[at : at + size])
    assert [msgspec.json.decode(each) for each in found[:-1]] == [
        msgspec.json.decode(each[6:]) for each in (WORD, STOP)
    ]
    assert not any(b"\n" in each or b"\r" in each for each in found)
    assert found[-1] == b"[DONE]"


DEEP = b"[" * 5000 + b"]" * 5000
AFTERWARDS = {
    "an event about nothing": event(b'{"choices":[]}'),
    "more words": WORD,
    "the end again": STOP,
    "an error": event(b'{"error":{"message":"x","type":"invalid_request_error"}}'),
    "usage with an empty choice": event(
        b'{"choices":[{"index":0,"delta":{"content":""}}],"usage":{"completion_tokens":7}}'
    ),
    "negative usage": event(b'{"choices":[],"usage":{"completion_tokens":-5}}'),
    "huge usage": event(b'{"choices":[],"usage":{"prompt_tokens":99999999999999999999}}'),
    "negative reasoning": event(
        b'{"choices":[],"usage":{"completion_tokens_details":{"reasoning_tokens":-1}}}'
    ),
    "deep usage": event(b'{"choices":[],"usage":%b}' % DEEP),
    "no JSON": event(b"bye"),
    "no event": b"bye\n\n",
}


@pytest.mark.parametrize("name", AFTERWARDS)
@pytest.mark.parametrize("stream", [True, False])
async def test_what_comes_after_the_end_changes_no_answer(name: str, stream: bool) -> None:
    speak = saying(PLAIN + WORD, STOP, AFTERWARDS[name], event(b"[DONE]"), pause=0.005)
    found = await asked(speak, stream=stream, streams_only=True)
    assert text_of(found) == "x"
    if isinstance(found, Reply):
        usage = found.decoded()["usage"]
        assert usage["completion_tokens"] == (7 if "empty" in name else 2)
        assert usage.get("estimated", False) != ("empty" in name)


GARBLED = {
    "no text": part(b'"delta":{"content":"\xff"}'),
    "nested too deeply": event(b'{"x":%b,"choices":[]}' % DEEP),
    "a word nested too deeply": part(b'"delta":{"content":%b}' % DEEP),
    "an error nested too deeply": event(b'{"error":%b}' % DEEP),
    "half a character": part(b'"delta":{"content":"\\ud800"}'),
    "no number": part(b'"delta":{"content":"x"},"p":NaN'),
    "no choice": event(b'{"choices":[null]}'),
}


@pytest.mark.parametrize("name", GARBLED)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("first", [b"", WORD])
async def test_a_garbled_event_is_an_engine_s_fault(name: str, stream: bool, first: bytes) -> None:
    speak = saying(PLAIN + first, GARBLED[name], STOP + event(b"[DONE]"), pause=0.005)
    with pytest.raises(EngineLost):
        await asked(speak, stream=stream, streams_only=True)


@pytest.mark.parametrize(
    "delta",
    [b'"x"', b'{"tool_calls":[null]}', b'{"tool_calls":"x"}', b'{"tool_calls":[{"index":{}}]}'],
)
async def test_what_cannot_be_put_together_is_an_engine_s_fault(delta: bytes) -> None:
    odd = part(b'"delta":' + delta)
    with pytest.raises(EngineLost):
        await asked(saying(PLAIN, WORD, odd, STOP), stream=False, streams_only=True)
    said = transcribe([Chunk(each[6:-2]) for each in (WORD, odd)])
    assert not said.plain
    with pytest.raises(Mismatch):
        Seam(said, skip=True).join(Chunk(odd[6:-2]))


def test_usage_that_is_told_again_and_again_is_counted_once() -> None:
    tally = Tally(CALL)
    for number in (1, 2, 3):
        tally.add(Usage(prompt_tokens=9, completion_tokens=number))
    assert (tally.prompt, tally.completion) == (9, 3)
    two = Tally(msgspec.structs.replace(CALL, choices=2))
    for _ in range(2):
        two.add(Usage(prompt_tokens=9, completion_tokens=3))
    assert (two.prompt, two.completion) == (9, 6)


def test_no_count_is_ever_negative() -> None:
    """An engine that goes on for another may not count what it was given."""
    tally = Tally(CALL)
    tally.carried = 40
    tally.add(Usage(prompt_tokens=9, completion_tokens=3))
    assert (tally.prompt, tally.completion) == (0, 43)
