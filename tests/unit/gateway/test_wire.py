"""Bytes in, calls out; events cut, assembled, counted."""

import json
import time
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.errors import EngineLost, Invalid
from freehold.gateway.wire import chat, completions, embeddings
from freehold.gateway.wire.assemble import Assembly, decode_event
from freehold.gateway.wire.sse import LONGEST_EVENT, Events
from freehold.gateway.wire.usage import Tally, read_usage


def ask(**fields: Any) -> bytes:
    base = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    return json.dumps({**base, **fields}).encode()


def test_what_is_not_known_passes_through_to_the_digit() -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"x"}],"big":12345678901234567890.10}'
    sent = chat.read(body).body("engine-name", stream=True)
    assert b"12345678901234567890.10" in sent
    document = json.loads(sent)
    assert document["model"] == "engine-name"
    assert document["stream_options"] == {"include_usage": True}


def test_a_call_that_does_not_stream_asks_for_no_options() -> None:
    call = chat.read(ask(stream=False, stream_options={"include_usage": True}))
    assert "stream_options" not in json.loads(call.body("m", stream=False))


def test_estimates_tell_the_prompt_from_the_answer() -> None:
    call = chat.read(ask(max_tokens=500))
    assert call.tokens == call.prompt + 500
    assert completions.read(b'{"model":"m","prompt":["a","b"],"n":2}').prompts == 2
    assert completions.read(b'{"model":"m","prompt":[1,2,3]}').prompts == 1
    assert completions.read(b'{"model":"m","prompt":[[1],[2]]}').prompts == 2
    assert embeddings.read(b'{"model":"m","input":[[1,2]]}').task == "embedding"


@pytest.mark.parametrize(
    ("read", "body", "param"),
    [
        (chat.read, ask(n=0), "n"),
        (chat.read, ask(top_p=2), "top_p"),
        (chat.read, ask(messages=[{"role": "user", "content": 5}]), "messages[0].content"),
        (completions.read, b'{"model":"m","prompt":{"a":1}}', "prompt"),
        (embeddings.read, b'{"model":"m","input":""}', "input"),
        (embeddings.read, b'{"model":"m","input":["a"],"encoding_format":"x"}', "encoding_format"),
    ],
)
def test_a_refusal_names_the_field(read: Any, body: bytes, param: str) -> None:
    with pytest.raises(Invalid) as caught:
        read(body)
    assert caught.value.param == param


STREAM = (
    b'data: {"a": 1}\n\n: comment\n\nevent: x\ndata: {"b": 2}\n\ndata: null\n\ndata: [DONE]\n\n'
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=10), st.booleans())
def test_events_come_out_whole_however_they_are_cut(cuts: list[int], returns: bool) -> None:
    data = STREAM
    places = sorted({0, len(data), *cuts})
    events = Events()
    found = []
    for start, end in pairwise(places):
        found += events.feed(data[start:end])
    assert found == [b'{"a": 1}', b'{"b": 2}', b"[DONE]"]
    assert not events.torn


def test_carriage_returns_and_torn_ends() -> None:
    events = Events()
    assert events.feed(b"data: 1\r\n\r\ndata: 2") == [b"1"]
    assert events.torn
    with pytest.raises(EngineLost, match="endless"):
        Events().feed(b"data: " + b"x" * (LONGEST_EVENT + 1))


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
@pytest.mark.parametrize("size", [1, 40])
def test_an_event_that_drips_costs_its_length_and_not_its_square(end: bytes, size: int) -> None:
    """An engine must not hold up everybody with one long event in tiny pieces."""
    events, lines = Events(), b"\rdata: x" * (size * 6000)
    data, begun = b"data: x" + lines + end, time.process_time()
    pieces = (data[at : at + size] for at in range(0, len(data), size))
    found = [event for piece in pieces for event in events.feed(piece)]
    found += events.feed(b"data: y\n\n")  # of a lone return nobody knows before what it was
    assert found == [b"x" + b" x" * (size * 6000), b"y"]
    assert not events.torn
    assert time.process_time() - begun < 4  # put together each time it takes minutes


def test_an_event_without_an_end_is_not_waited_for() -> None:
    events, piece = Events(), b"x" * (1 << 16)
    for _ in range(LONGEST_EVENT // len(piece)):
        assert events.feed(piece) == []
    with pytest.raises(EngineLost, match="endless"):
        events.feed(b"x")


def delta(index: int = 0, reason: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": fields, "finish_reason": reason}]}


def test_tool_calls_are_put_together_from_their_pieces() -> None:
    assembly = Assembly()
    first = {"index": 0, "id": "c1", "type": "function"}
    for event in (
        delta(role="assistant", content=None),
        delta(tool_calls=[{**first, "function": {"name": "f", "arguments": ""}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": '{"a"'}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": ": 1}"}}]),
        delta(tool_calls=[{"index": 1, "id": "c2", "function": {"name": "g", "arguments": "{}"}}]),
        delta(reason="tool_calls"),
    ):
        assembly.feed(event)
    choice = assembly.document()["choices"][0]
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
        {"id": "c2", "function": {"name": "g", "arguments": "{}"}},
    ]
    assert choice["finish_reason"] == "tool_calls"


def test_choices_in_any_order_and_their_logprobs() -> None:
    assembly = Assembly()
    assembly.feed({"object": "chat.completion.chunk", **delta(1, content="b")})
    part = delta(0, content="a")
    part["choices"][0]["logprobs"] = {"content": [1]}
    assembly.feed(part)
    part = delta(0, content="c")
    part["choices"][0]["logprobs"] = {"content": [2]}
    assembly.feed(part)
    assembly.feed(delta(0, "stop"))
    with pytest.raises(EngineLost, match="too early"):
        assembly.document()
    assembly.feed(delta(1, "length"))
    document = assembly.document()
    assert document["object"] == "chat.completion"
    assert [choice["message"]["content"] for choice in document["choices"]] == ["ac", "b"]
    assert document["choices"][0]["logprobs"] == {"content": [1, 2]}


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b"3", b"\xff"])
def test_events_that_are_none(data: bytes) -> None:
    with pytest.raises(EngineLost):
        decode_event(data)


def test_usage_of_choices_shares_its_prompt_and_of_prompts_adds_up() -> None:
    report = read_usage({"prompt_tokens": 10, "completion_tokens": 4, "extra": 1})
    choices = Tally(chat.read(ask(n=2)))
    prompts = Tally(completions.read(b'{"model":"m","prompt":["a","b"]}'))
    for tally in (choices, prompts):
        assert tally.estimated
        tally.frames = 3
        assert tally.completion == 3
        tally.add(report)
        tally.add(report)
        assert (tally.completion, tally.estimated) == (8, False)
    assert (choices.prompt, prompts.prompt) == (10, 20)
    assert choices.document()["total_tokens"] == 18


@pytest.mark.parametrize("value", [3, {"prompt_tokens": "x"}, {"prompt_tokens": None}])
def test_usage_that_is_none(value: Any) -> None:
    with pytest.raises(EngineLost):
        read_usage(value)


@given(st.binary(max_size=200))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    for read in (chat.read, completions.read, embeddings.read):
        try:
            call = read(body)
        except Invalid:
            continue
        msgspec.json.decode(call.body("m", stream=True))


@pytest.mark.parametrize("count", [2**63, 2**53, -1, 10**30])
def test_no_engine_reports_more_tokens_than_tables_can_add_up(count: int) -> None:
    for field in ("prompt_tokens", "completion_tokens", "total_tokens"):
        with pytest.raises(EngineLost):
            read_usage({field: count})
    with pytest.raises(EngineLost):
        read_usage({"prompt_tokens_details": {"cached_tokens": count}})
