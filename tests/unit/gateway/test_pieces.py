"""Pieces come in an order that blocks can take; no cut of a stream changes an answer."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.errors import EngineLost, Invalid
from freehold.gateway.wire import chat, messages, responses
from freehold.gateway.wire.call import Call
from freehold.gateway.wire.dialect import Chunk, Reply, Writer
from freehold.gateway.wire.events import EventWriter
from freehold.gateway.wire.messages.answer import MessageWriter
from freehold.gateway.wire.pieces import Arguments, CallBegin, Piece, Pieces, Text
from freehold.gateway.wire.sse import DONE, Events
from freehold.gateway.wire.usage import Tally, read_usage
from tests.scripted import whole

GOLDEN = Path(__file__).parents[2] / "golden"
SCRIPTS = {
    path.stem: json.loads(path.read_text())["engine"]
    for path in sorted((GOLDEN / "messages").glob("*.json"))
    if "tool" in path.stem or path.stem in ("text", "reasoning", "refusal", "length")
    if "engine" in json.loads(path.read_text())
}
CALL = chat.read(b'{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}')
REQUEST, _ = responses.read(b'{"model":"m","input":"x"}')


def delta(**fields: Any) -> bytes:
    return json.dumps({"choices": [{"index": 0, "delta": fields}]}).encode()


def call(index: int | None, text: str = "", name: str | None = None) -> bytes:
    made: dict[str, Any] = {"function": {"arguments": text}}
    if index is not None:
        made["index"] = index
    if name:
        made["function"]["name"] = name
        made["id"] = f"id-{name}"
    return delta(tool_calls=[made])


def told(*events: bytes) -> list[Piece]:
    pieces = Pieces()
    found = [piece for event in events for piece in pieces.feed(event)]
    return [*found, *pieces.end()]


def shape(found: list[Piece]) -> list[tuple[str, str]]:
    """Join what follows one another: (name of the call or kind, text)."""
    joined: list[tuple[str, str]] = []
    for piece in found:
        if isinstance(piece, CallBegin):
            joined.append((piece.name, ""))
        elif isinstance(piece, Arguments):
            joined[-1] = (joined[-1][0], joined[-1][1] + piece.text)
        else:
            joined.append((type(piece).__name__, piece.text))
    return joined


def test_a_call_that_is_whole_lets_the_next_one_begin_at_once() -> None:
    pieces = Pieces()
    list(pieces.feed(call(0, '{"a": 1}', "f")))
    assert list(pieces.feed(call(1, "", "g"))) == [CallBegin(1, "id-g", "g")]


def test_others_wait_for_a_call_that_is_not_whole() -> None:
    pieces = Pieces()
    list(pieces.feed(call(0, '{"a"', "f")))
    assert not list(pieces.feed(call(1, "{}", "g")))
    assert not list(pieces.feed(delta(content="text")))
    assert list(pieces.feed(call(0, ": 1}"))) == [
        Arguments(": 1}"), CallBegin(1, "id-g", "g"), Arguments("{}"), Text("text"),
    ]  # fmt: skip


def test_what_never_becomes_whole_is_told_all_the_same() -> None:
    found = told(call(0, "", "f"), call(1, "{", "g"), call(2, "{}", "h"), call(1, "}"))
    assert shape(found) == [("f", ""), ("g", "{}"), ("h", "{}")]


def test_calls_without_a_number_are_told_apart_by_their_names() -> None:
    found = told(call(None, '{"a"', "f"), call(None, ": 1}"), call(None, "{}", "g"))
    assert shape(found) == [("f", '{"a": 1}'), ("g", "{}")]


def test_space_after_a_call_is_nothing_and_more_is_nonsense() -> None:
    assert shape(told(call(0, "{}", "f"), call(1, "{}", "g"), call(0, " "))) == [
        ("f", "{}"),
        ("g", "{}"),
    ]
    with pytest.raises(EngineLost, match="is over"):
        told(call(0, "{}", "f"), call(1, "{}", "g"), call(0, "{}"))


@pytest.mark.parametrize("event", [b"{", b'{"choices": 1}', call(0, "{}")])
def test_nonsense_is_the_engines_fault(event: bytes) -> None:
    with pytest.raises(EngineLost):
        told(event)


def test_only_the_first_choice_counts() -> None:
    second = json.dumps({"choices": [{"index": 1, "delta": {"content": "b"}}]}).encode()
    assert told(delta(content="a"), second) == [Text("a")]


@given(st.data())
@settings(max_examples=25)
def test_however_calls_are_mixed_each_keeps_its_arguments(data: st.DataObject) -> None:
    wanted = {f"f{n}": data.draw(st.dictionaries(st.text(max_size=3), st.integers(), max_size=3))
              for n in range(data.draw(st.integers(1, 4)))}  # fmt: skip
    lanes = []
    for number, (name, arguments) in enumerate(wanted.items()):
        text = json.dumps(arguments)
        cut = data.draw(st.integers(0, len(text)))
        lanes.append([call(number, text[:cut], name), call(number, text[cut:])])
    events = []
    while any(lanes):
        lane = data.draw(st.sampled_from([lane for lane in lanes if lane]))
        events.append(lane.pop(0))
    found = dict(shape(told(*events)))
    assert {name: json.loads(text) for name, text in found.items()} == wanted


def writers() -> dict[str, Writer]:
    begun = responses.resource(REQUEST, "resp_1", 0, store=False)
    return {
        "chat": EventWriter(CALL, "req-1"),
        "messages": MessageWriter(CALL, "req-1"),
        "responses": responses.ResponseWriter(begun, lambda: 0.0),
    }


def write(writer: Writer, batches: list[list[bytes]], call: Call = CALL) -> bytes:
    """Do as the generation does: count, tell the finish, then write."""
    tally, out = Tally(call), b""
    for batch in batches:
        chunks = []
        for data in batch:
            event = json.loads(data)
            if event.get("usage"):
                tally.add(read_usage(event["usage"]))
            finished = any(c["finish_reason"] for c in event["choices"])
            chunks.append(Chunk(data, finished=finished, closing=not event["choices"]))
        out += writer.write(chunks)
    return out + writer.last(tally)


@pytest.mark.parametrize("name", SCRIPTS)
@given(cuts=st.lists(st.integers(0, 4000), max_size=30))
@settings(max_examples=15)
def test_no_cut_of_the_stream_changes_what_the_client_gets(name: str, cuts: list[int]) -> None:
    events = [json.dumps(event).encode() for event in SCRIPTS[name]]
    stream = b"".join(b"data: %b\n\n" % event for event in [*events, DONE])
    places = sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})
    reader = Events()
    batches = [reader.feed(stream[start:end]) for start, end in pairwise(places)]
    batches = [[data for data in batch if data != DONE] for batch in batches]
    for dialect, writer in writers().items():
        once = write(writers()[dialect], [events])
        assert write(writer, [batch for batch in batches if batch]) == once


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_stream_and_a_whole_answer_say_the_same(name: str) -> None:
    document = whole(SCRIPTS[name])
    reply = Reply(json.dumps(document).encode())
    made = responses.ResponseWriter(
        responses.resource(REQUEST, "resp_1", 0, store=False), lambda: 0.0
    )
    events = [json.dumps(event).encode() for event in SCRIPTS[name]]
    last = write(writers()["responses"], [events]).split(b"\n\n")[-3].partition(b"\ndata: ")[2]
    assert json.loads(made.render(reply)) == json.loads(last)["response"]
    assert json.loads(messages.DIALECT.render(CALL, reply, "req-1"))["stop_reason"]


@given(st.binary(max_size=200))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    for read in (messages.read, responses.read):
        try:
            read(body)
        except Invalid:
            continue
