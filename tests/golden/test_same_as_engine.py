"""What comes through Freehold is what the bare engine says, field by field."""

import json
from typing import Any

import pytest

from tests.house import QUESTION, House, events

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
FORM = {
    "type": "json_schema",
    "json_schema": {
        "name": "x",
        "schema": {
            "type": "object",
            "properties": {"a": {"type": "integer"}},
            "required": ["a"],
        },
    },
}
CHATS: dict[str, dict[str, Any]] = {
    "plain": {},
    "long": {"max_tokens": 120},
    "stop": {"max_tokens": 60, "stop": ["physics"]},
    "logprobs": {"logprobs": True, "top_logprobs": 3},
    "n": {"n": 3, "temperature": 1, "seed": 4},
    "schema": {"response_format": FORM, "max_tokens": 30},
    "tools": {"tools": [TOOL], "max_tokens": 30},
    "unicode": {"messages": [{"role": "user", "content": "Say: äöü 🎉 日本"}], "max_tokens": 30},
}
COMPLETIONS: dict[str, dict[str, Any]] = {
    "plain": {"prompt": "Once upon a time"},
    "tokens": {"prompt": [504, 2025, 314]},
    "several": {"prompt": ["One, two,", "A, B,"]},
    "logprobs": {"prompt": "Once upon", "logprobs": 2},
    "echoless stop": {"prompt": "1 2 3 4", "stop": ["7"]},
}


@pytest.mark.parametrize("name", CHATS)
def test_chat(house: House, name: str) -> None:
    body = {
        "model": "smol",
        "messages": QUESTION,
        "max_tokens": 12,
        "temperature": 0,
        **CHATS[name],
    }
    same(house, "/chat/completions", body)


@pytest.mark.parametrize("name", COMPLETIONS)
def test_completions(house: House, name: str) -> None:
    body = {"model": "smol", "max_tokens": 12, "temperature": 0, **COMPLETIONS[name]}
    same(house, "/completions", body)


def test_embeddings(house: House) -> None:
    body = {"model": "smol", "input": ["a cat", "a dog"]}
    ours = house.call("POST", "/v1/embeddings", body).json
    theirs = bare(house, "/embeddings", body)
    assert ours == theirs


def test_a_stream_is_the_engines_own_events(house: House) -> None:
    body = {"model": "smol", "messages": QUESTION, "max_tokens": 12, "temperature": 0,
            "stream": True, "stream_options": {"include_usage": True}}  # fmt: skip
    ours = events(house.call("POST", "/v1/chat/completions", body).body)
    theirs = events(bare_bytes(house, "/chat/completions", body))
    assert [_plain(event) for event in ours] == [_plain(event) for event in theirs]


def same(house: House, path: str, body: dict[str, Any]) -> None:
    answer = house.call("POST", f"/v1{path}", body)
    assert answer.status == 200, answer.body
    ours, theirs = answer.json, bare(house, path, body)
    assert ours["usage"]["prompt_tokens"] >= theirs["usage"]["prompt_tokens"]
    assert _plain(ours) == _plain(theirs)
    assert set(theirs) <= set(ours)


def bare(house: House, path: str, body: dict[str, Any]) -> Any:
    return json.loads(bare_bytes(house, path, body))


def bare_bytes(house: House, path: str, body: dict[str, Any]) -> bytes:
    record = next((house.home / "run" / "replicas").glob("*.json"))
    replica = json.loads(record.read_text())
    answer = house.call("POST", f"/v1{path}", body, key=replica["secret"], url=replica["url"])
    assert answer.status == 200, answer.body
    return answer.body


def _plain(document: Any) -> Any:
    """Leave out what differs from one run to the next: ids, times, what was cached."""
    if not isinstance(document, dict):
        return document
    kept = {k: v for k, v in document.items() if k not in ("id", "created", "timings", "usage")}
    for choice in kept.get("choices", ()):
        for call in choice.get("message", {}).get("tool_calls") or ():
            call.pop("id", None)
        if isinstance(choice.get("logprobs"), dict):
            _round(choice["logprobs"])
    return kept


def _round(value: Any) -> None:
    """Round probabilities: a prompt that was cached is computed in another batch."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        if isinstance(item, float):
            value[key] = round(item, 2)
        elif isinstance(item, (dict, list)):
            _round(item)
