"""Failover's decisions as tables: whose fault, whether to ask again, how to go on, what is new."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.errors import Busy, EngineLost, TooSlow
from freehold.gateway.blame import blame, blame_error, read_retry_after
from freehold.gateway.faults import EngineFault, fault
from freehold.gateway.resume import continuation, spent, way
from freehold.gateway.retry import again, pause
from freehold.gateway.seam import Mismatch, Seam
from freehold.gateway.transcript import transcribe
from freehold.gateway.watch import too_slow
from freehold.gateway.wire import chat, completions
from freehold.gateway.wire.call import Call
from freehold.gateway.wire.dialect import Chunk
from freehold.store.snapshot import Target


@pytest.mark.parametrize(
    ("status", "after", "kind", "code", "wait"),
    [
        (400, None, EngineFault, "engine.400", None),
        (413, None, EngineFault, "engine.413", None),
        (422, None, EngineFault, "engine.422", None),
        (501, None, EngineFault, "engine.501", None),
        (401, None, EngineLost, "unavailable.upstream_key", None),
        (403, "9", EngineLost, "unavailable.upstream_key", None),
        (404, None, EngineLost, "unavailable.engine_error", 1),
        (408, None, EngineLost, "unavailable.engine_error", 1),
        (429, None, Busy, "unavailable.engine_busy", 1.0),
        (429, "7", Busy, "unavailable.engine_busy", 7.0),
        (500, None, EngineLost, "unavailable.engine_error", 1),
        (503, None, EngineLost, "unavailable.engine_error", 1),
        (503, "7", Busy, "unavailable.engine_busy", 7.0),
        (302, None, EngineLost, "unavailable.engine_error", 1),
        (204, None, EngineLost, "unavailable.engine_error", 1),
    ],
)
def test_whose_fault(
    status: int, after: str | None, kind: type[Any], code: str, wait: float | None
) -> None:
    found = blame(status, b'{"error": {"message": "sk-secret"}}', after)
    assert type(found) is kind
    assert found.code == code
    if not isinstance(found, EngineFault):
        assert found.retry_after == wait
        assert fault(found, "r").status in (503, 504)
    if status in (401, 403):
        assert "sk-secret" not in str(found)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "m", "code": 400}, EngineFault),
        ({"message": "m", "code": 429}, Busy),
        ({"message": "m", "code": 503}, EngineLost),
        ({"message": "m", "code": "odd", "type": "server_error"}, EngineLost),
        ({"message": "m", "type": "invalid_request_error"}, EngineFault),
        ("words", EngineLost),
        ({"code": True}, EngineLost),
        ([1], EngineLost),
    ],
)
def test_whose_fault_inside_an_answer(error: object, kind: type[Any]) -> None:
    assert type(blame_error(json.dumps({"error": error}).encode())) is kind


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("5", 5.0),
        (" 0.5 ", 0.5),
        ("-3", 0.0),
        ("soon", None),
        ("Wed, 21 Oct 2015 07:28:10 GMT", 10.0),
        ("Wed, 21 Oct 2015 07:27:00 GMT", 0.0),
        ("nan", None),
        ("inf", None),
        ("1e300", 86_400.0),
        ("Wed, 21 Oct 9998 07:28:10 GMT", 86_400.0),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert read_retry_after(value, 1445412480.0) == seconds


@pytest.mark.parametrize(
    ("error", "wait"),
    [
        (Busy("unavailable.engine_busy", "", retry_after=3.0), 3.0),
        (EngineLost("unavailable.engine_lost", ""), 0.0),
        (EngineLost("unavailable.upstream_key", ""), None),
        (EngineLost("unavailable.engine_blank", ""), None),
        (Mismatch("unavailable.engine_differs", ""), None),
        (TooSlow("unavailable.headers_deadline", ""), None),
    ],
)
def test_whether_to_ask_again(error: EngineLost, wait: float | None) -> None:
    assert again(error) == wait


def test_pauses_double_spread_and_honour_what_was_asked() -> None:
    assert [pause(n, [0.0], 1.0) for n in range(3)] == [0.1, 0.2, 0.4]
    assert pause(0, [0.0], 0.0) == 0.05
    assert pause(30, [], 1.0) == 5.0
    assert pause(0, [7.0, 3.0], 0.5) == 3.0


def test_each_deadline_has_its_own_error() -> None:
    stages = ("connect", "headers", "first_token", "token", "total")
    errors = [too_slow(stage, 1.5) for stage in stages]
    assert [e.code for e in errors] == [f"unavailable.{stage}_deadline" for stage in stages]
    assert all(e.details == {"deadline": s, "seconds": 1.5} for e, s in zip(errors, stages))  # noqa: B905
    assert all(fault(e, "r").status == 504 for e in errors)


def call(**fields: Any) -> Call:
    base = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    return chat.read(json.dumps({**base, **fields}).encode())


def complete(**fields: Any) -> Call:
    return completions.read(json.dumps({"model": "m", "prompt": "Once", **fields}).encode())


def chunk(content: str | None = None, *, reason: str | None = None, **choice: Any) -> Chunk:
    delta = {} if content is None else {"content": content}
    what = {"index": 0, "delta": delta, "finish_reason": reason, **choice}
    event = {"id": "first", "created": 1, "model": "m", "choices": [what]}
    return Chunk(json.dumps(event).encode(), finished=reason is not None)


def target(continues: str | None = "prefill") -> Target:
    return Target(replica="r", url="u", key=None, model="m", streams_only=True, continues=continues)


SAID = transcribe([chunk(""), chunk("Once"), chunk(" upon")])
TOOL = {"tool_calls": [{"index": 0, "id": "x", "function": {"name": "f", "arguments": "{"}}]}


@pytest.mark.parametrize(
    ("asked", "exact", "continues", "expected"),
    [
        (call(temperature=0), True, "prefill", "restart"),
        (call(seed=0, temperature=1), True, None, "restart"),
        (call(temperature=0), False, "prefill", "continue"),
        (call(temperature=0), False, None, None),
        (call(temperature=0, n=2), False, "prefill", None),
        (call(temperature=0, n=2), True, "prefill", "restart"),
        (call(), True, "prefill", "continue"),
        (call(), True, "final_message", "continue"),
        (call(), True, None, None),
        (call(n=2), True, "prefill", None),
        (call(tools=[{"type": "function"}]), True, "prefill", None),
        (call(tools=[]), True, "prefill", "continue"),
        (call(response_format={"type": "json_object"}), True, "prefill", None),
        (call(response_format={"type": "text"}), True, "prefill", "continue"),
        (call(response_format=None, logprobs=False), True, "prefill", "continue"),
        (call(logprobs=True), True, "prefill", None),
        (call(grammar="x"), True, "prefill", None),
        (call(min_tokens=5), True, "prefill", None),
        (complete(), True, None, "continue"),
        (complete(prompt=["a", "b"]), True, None, None),
        (complete(echo=True), True, None, None),
        (complete(suffix="x"), True, None, None),
    ],
)
def test_how_an_answer_goes_on(
    asked: Call, exact: bool, continues: str | None, expected: str | None
) -> None:
    assert way(asked, SAID, target(continues), exact=exact) == expected


def test_only_plain_text_is_continued() -> None:
    for said in (
        [chunk(None, delta=TOOL)],
        [chunk(None, delta={"reasoning_content": "hm"})],
        [chunk("a"), chunk("b", index=1)],
        [chunk("a", logprobs={"content": [1]})],
        [chunk("")],
    ):
        assert way(call(), transcribe(said), target(), exact=True) is None


def test_what_another_replica_is_asked() -> None:
    def sent(asked: Call, how: str) -> dict[str, Any]:
        return json.loads(continuation(asked, SAID, target(how)).body("m", stream=True))

    prefill = sent(call(max_tokens=10, max_completion_tokens=9), "prefill")
    assert prefill["messages"][1:] == [{"role": "assistant", "content": "Once upon"}]
    assert (prefill["max_tokens"], prefill["max_completion_tokens"]) == (8, 7)
    assert "continue_final_message" not in prefill
    final = sent(call(), "final_message")
    assert (final["continue_final_message"], final["add_generation_prompt"]) == (True, False)
    begun = call(messages=[{"role": "assistant", "content": "So: "}])
    assert sent(begun, "prefill")["messages"] == [{"role": "assistant", "content": "So: Once upon"}]
    assert way(begun, SAID, target("final_message"), exact=True) is None
    assert json.loads(continuation(complete(), SAID, target()).body("m", stream=True))[
        "prompt"
    ] == ("OnceOnce upon")


def test_when_only_the_end_is_missing() -> None:
    assert spent(call(max_tokens=2), SAID)
    assert not spent(call(max_tokens=3), SAID)
    assert not spent(call(), SAID)
    assert not spent(call(max_tokens=2, n=2), SAID)


WORDS = ["Once", " upon", " a", " time", " ü", "…"]


@given(
    st.integers(1, len(WORDS)),
    st.lists(st.integers(1, 9), min_size=1, max_size=30),
)
def test_a_seam_does_not_show_however_the_text_is_cut(first: int, sizes: list[int]) -> None:
    whole = "".join(WORDS)
    said = transcribe([chunk(word) for word in WORDS[:first]])
    seam, rest, out = Seam(said, skip=True), whole, ""
    parts = [chunk("", delta={"role": "assistant", "content": ""})]
    for size in [*sizes, len(whole)]:
        parts.append(chunk(rest[:size]))
        rest = rest[size:]
    for part in [*parts, chunk(reason="stop")]:
        joined = seam.join(msgspec.structs.replace(part, data=part.data.replace(b"first", b"2nd")))
        if joined is None:
            continue
        event = json.loads(joined.data)
        assert event["id"] == "first"
        assert "role" not in event["choices"][0]["delta"]
        out += event["choices"][0]["delta"].get("content", "")
    assert "".join(WORDS[:first]) + out == whole
    assert joined is not None
    assert joined.finished


def test_another_text_is_noticed() -> None:
    said = transcribe([chunk("Once upon")])
    for parts in (
        [chunk("Twice")],
        [chunk("Once"), chunk(" more")],
        [chunk("Once"), chunk(reason="stop")],
        [chunk("Once upon a", logprobs={"content": [1]})],
    ):
        seam = Seam(said, skip=True)
        with pytest.raises(Mismatch):
            [seam.join(part) for part in parts]


def test_tool_calls_go_on_with_the_first_one_s_id() -> None:
    def piece(arguments: str, **head: Any) -> Chunk:
        function = {**({"name": "f"} if head else {}), "arguments": arguments}
        return chunk(None, delta={"tool_calls": [{"index": 0, **head, "function": function}]})

    seam = Seam(transcribe([piece("", id="one"), piece('{"a')]), skip=True)
    assert seam.join(piece("", id="two")) is None
    assert seam.join(piece("{")) is None
    joined = seam.join(piece('"a": 1'))
    assert joined is not None
    assert json.loads(joined.data)["choices"][0]["delta"]["tool_calls"] == [
        {"index": 0, "function": {"arguments": '": 1'}}
    ]
    fresh = seam.join(chunk(None, delta={"tool_calls": [{"index": 1, "id": "n"}]}))
    assert fresh is None or "n" in fresh.data.decode()
