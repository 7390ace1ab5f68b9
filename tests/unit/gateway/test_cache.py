"""The cache of answers: what is told apart, who may see what, how much is kept."""

import asyncio
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.gateway.cache import OVERHEAD, Cache, control, is_repeatable
from freehold.gateway.repeat import chunks
from freehold.gateway.wire import chat, completions, embeddings
from freehold.gateway.wire.assemble import Assembly, decode_event
from freehold.gateway.wire.call import Call
from freehold.store.snapshot import Route

MESSAGES = [{"role": "user", "content": "Hi"}]
ROUTE = Route(deployment="d", engine="e", place="local", task="chat", state="ready", model="m",
              version=1, digest="ab", setup="s", cache_seconds=9)  # fmt: skip


def ask(**fields: Any) -> Call:
    return chat.read(json.dumps({"model": "d", "messages": MESSAGES, **fields}).encode())


def cache(limit: int = 10**6, secret: bytes = b"s" * 32, now: list[float] | None = None) -> Cache:
    at = now or [0.0]
    return Cache(secret, limit, lambda: at[0])


@pytest.mark.parametrize(
    ("fields", "repeatable"),
    [
        ({}, False),
        ({"temperature": 1}, False),
        ({"temperature": 0}, True),
        ({"temperature": 0.0}, True),
        ({"temperature": None}, False),
        ({"temperature": 1, "seed": 7}, True),
        ({"seed": 0}, True),
        ({"seed": None}, False),
        ({"seed": -1}, False),
        ({"seed": 4294967295}, False),
    ],
)
def test_which_calls_are_a_function_of_their_request(
    fields: dict[str, Any], repeatable: bool
) -> None:
    assert is_repeatable(ask(**fields)) is repeatable


def test_embeddings_always_are() -> None:
    assert is_repeatable(embeddings.read(b'{"model": "d", "input": "x"}'))


@pytest.mark.parametrize(
    ("header", "takes", "keeps"),
    [
        (None, True, True),
        ("", True, True),
        ("no-store", False, False),
        ("No-Cache", False, True),
        ("max-age=0", False, True),
        ("private, no-store", False, False),
        ("max-age=60", True, True),
    ],
)
def test_what_a_header_asks_for(header: str | None, takes: bool, keeps: bool) -> None:
    assert control(header) == (takes, keeps)


def test_everything_that_shapes_an_answer_tells_it_apart() -> None:
    same = cache()
    changed = msgspec.structs.replace
    plain = same.digest("t", "chat", ask(temperature=0), ROUTE)
    others = [
        same.digest("u", "chat", ask(temperature=0), ROUTE),
        same.digest("t", "messages", ask(temperature=0), ROUTE),
        same.digest("t", "chat", ask(temperature=0, seed=1), ROUTE),
        same.digest("t", "chat", ask(temperature=0, max_tokens=5), ROUTE),
        same.digest("t", "chat", ask(temperature=0, grammar="g"), ROUTE),
        same.digest("t", "chat", ask(temperature=0, messages=[*MESSAGES, *MESSAGES]), ROUTE),
        same.digest("t", "chat", ask(temperature=0), changed(ROUTE, deployment="e")),
        same.digest("t", "chat", ask(temperature=0), changed(ROUTE, version=2)),
        same.digest("t", "chat", ask(temperature=0), changed(ROUTE, digest="cd")),
        same.digest("t", "chat", ask(temperature=0), changed(ROUTE, setup="other")),
        cache(secret=b"o" * 32).digest("t", "chat", ask(temperature=0), ROUTE),
        same.digest(
            "t",
            "chat",
            completions.read(b'{"model": "d", "prompt": "Hi", "temperature": 0}'),
            ROUTE,
        ),
    ]
    assert len({plain, *others}) == len(others) + 1


def test_the_form_of_an_answer_does_not_tell_it_apart() -> None:
    same = cache()
    digests = {
        same.digest("t", "chat", call, ROUTE)
        for call in (
            ask(temperature=0),
            ask(temperature=0, stream=True),
            ask(temperature=0, stream=True, stream_options={"include_usage": True}),
            ask(temperature=0, model="auto"),
            chat.read(b'{"temperature": 0, "messages": [{"role": "user", "content": "Hi"}], '
                      b'"model": "d"}'),
        )
    }  # fmt: skip
    assert len(digests) == 1


TENANTS = st.text(max_size=30)
REQUESTS = st.fixed_dictionaries(
    {"messages": st.just(MESSAGES)},
    optional={
        "seed": st.integers(0, 99),
        "user": st.text(max_size=20),
        "stop": st.text(max_size=20),
        "x\\": st.text(max_size=20),
    },
)


@given(TENANTS, TENANTS, REQUESTS, REQUESTS)
def test_no_request_of_one_tenant_finds_what_is_kept_for_another(
    one: str, other: str, first: dict[str, Any], second: dict[str, Any]
) -> None:
    kept = cache()
    digest = kept.digest(one, "chat", ask(**first), ROUTE)
    kept.put(digest, b"{}", 60, estimated=False)
    found = kept.get(kept.digest(other, "chat", ask(**second), ROUTE))
    assert (found is not None) == (one == other and first == second)


def test_the_oldest_used_goes_first_and_the_bound_holds() -> None:
    kept = cache(limit=3 * (100 + OVERHEAD))
    for name in (b"a", b"b", b"c"):
        kept.put(name, b"x" * 100, 60, estimated=False)
    assert kept.get(b"a") is not None
    kept.put(b"d", b"x" * 100, 60, estimated=False)
    assert [kept.get(name) is not None for name in (b"a", b"b", b"c", b"d")] == [1, 0, 1, 1]
    kept.put(b"d", b"x" * 10, 60, estimated=False)
    assert kept.bytes == 2 * (100 + OVERHEAD) + 10 + OVERHEAD
    kept.put(b"a", b"x" * 10_000, 60, estimated=False)
    assert kept.get(b"a") is None, "an answer of yesterday is not kept on for one too large"
    assert kept.bytes == 100 + 10 + 2 * OVERHEAD


def test_what_is_old_is_gone() -> None:
    now = [100.0]
    kept = cache(now=now)
    kept.put(b"a", b"x", 5, estimated=False)
    now[0] = 104.9
    assert kept.get(b"a") is not None
    now[0] = 105.0
    assert kept.get(b"a") is None
    assert kept.bytes == 0


async def test_who_says_the_same_waits_for_the_first() -> None:
    kept = cache()
    with kept.flight(b"a"):
        waiting = [asyncio.create_task(kept.find(b"a")) for _ in range(3)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        assert await kept.find(b"b") is None
        with kept.flight(b"a"):
            pass
        kept.put(b"a", b"x", 5, estimated=False)
    assert [found and found.data for found in await asyncio.gather(*waiting)] == [b"x"] * 3
    with kept.flight(b"c"):
        lonely = asyncio.create_task(kept.find(b"c"))
        await asyncio.sleep(0)
    assert await lonely is None, "the first failed: the others go on by themselves"


CHAT = {
    "id": "c", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [
        {"index": 0, "finish_reason": "tool_calls", "logprobs": None, "message": {
            "role": "assistant", "content": None, "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                {"id": "2", "type": "function", "function": {"name": "g", "arguments": "{}"}}]}},
        {"index": 1, "finish_reason": "length",
         "logprobs": {"content": [{"token": "a", "logprob": -0.5}]},
         "message": {"role": "assistant", "content": "a", "reasoning_content": "hm"}},
    ],
}  # fmt: skip
TEXT = {
    "id": "t", "object": "text_completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "text": "a b", "logprobs": None, "finish_reason": "stop"}],
}  # fmt: skip


@pytest.mark.parametrize("document", [CHAT, TEXT], ids=["chat", "completion"])
def test_a_whole_answer_as_a_stream_says_the_same(document: dict[str, Any]) -> None:
    found = chunks({**document, "usage": {"prompt_tokens": 1}})
    assembly = Assembly()
    for chunk in found:
        assert b"usage" not in chunk.data
        assembly.feed(decode_event(chunk.data))
    assert assembly.document() == document
    assert [chunk.closing for chunk in found] == [False] * (len(found) - 1) + [True]
    assert sum(chunk.finished for chunk in found) == len(document["choices"])
