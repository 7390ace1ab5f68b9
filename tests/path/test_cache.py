"""Answers that need no replica: kept for a deployment that asks for it, for one tenant each."""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.house import Answer, House, events

Make = Callable[..., House]


@pytest.fixture
def keeping(new_house: Make) -> House:
    house = new_house()
    house.cli("deploy", "smol", "--cache", "300")
    return house.start()


def test_answers_are_kept_by_tenant_and_request(keeping: House) -> None:
    first, again = keeping.chat(), keeping.chat()
    assert (_said(first), _said(again)) == ("miss", "hit")
    assert again.json["choices"] == first.json["choices"]
    usage = first.json["usage"]
    details = {"cached_tokens": usage["prompt_tokens"]}
    assert again.json["usage"] == {**usage, "prompt_tokens_details": details}
    hit, miss = keeping.audit()[:2]
    assert (hit["cache"], hit["outcome"], hit["status"]) == ("hit", "ok", 200)
    assert (hit.get("attempts", 0), hit.get("replica")) == (0, None)
    assert (miss["cache"], miss["attempts"]) == ("miss", 1)
    for name in ("deployment", "model", "version", "digest", "tokens_in", "tokens_out"):
        assert hit[name] == miss[name], name

    other = keeping.make_key("developer")
    assert _said(keeping.chat(key=other)) == "miss", "another tenant never finds it"
    assert _said(keeping.chat(key=other)) == "hit"
    assert _said(keeping.chat(max_tokens=7)) == "miss"
    assert _said(keeping.chat(temperature=0.7)) == "bypass"
    assert _said(keeping.chat(temperature=0.7, seed=3)) == "miss"
    assert _said(keeping.chat(temperature=0.7, seed=3)) == "hit"
    vector = {"model": "smol", "input": "a cat"}
    vectors = [keeping.call("POST", "/v1/embeddings", vector) for _ in range(2)]
    assert list(map(_said, vectors)) == ["miss", "hit"]
    assert vectors[0].json["data"] == vectors[1].json["data"]

    unkept = {"messages": [{"role": "user", "content": "Once"}]}
    assert _said(keeping.chat(headers={"cache-control": "no-store"}, **unkept)) == "bypass"
    assert _said(keeping.chat(**unkept)) == "miss", "no-store keeps nothing"
    assert _said(keeping.chat(headers={"cache-control": "no-cache"}, **unkept)) == "bypass"

    os.kill(keeping.engine_pid(), signal.SIGKILL)
    assert _said(keeping.chat()) == "hit", "no engine is needed"
    text = keeping.cli("export")
    assert "cache]" in text
    planned = keeping.run_cli("apply", "--plan", "-", text=text)
    assert planned.returncode == 0, planned.stderr
    assert "nothing to change" in planned.stderr


def test_a_stream_is_kept_for_whole_answers_and_the_other_way_round(keeping: House) -> None:
    options = {"include_usage": True}
    whole = keeping.chat(n=2, seed=4, temperature=0.9)
    streamed = keeping.chat(n=2, seed=4, temperature=0.9, stream=True, stream_options=options)
    assert _said(streamed) == "hit"
    assert _texts(streamed) == [c["message"]["content"] for c in whole.json["choices"]]
    found = events(streamed.body)
    assert found[-1] == "[DONE]"
    assert found[-2]["choices"] == []
    assert found[-2]["usage"]["completion_tokens"] == whole.json["usage"]["completion_tokens"]
    assert found[-2]["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    assert {e["object"] for e in found[:-1]} == {"chat.completion.chunk"}
    assert len({e["id"] for e in found[:-1]}) == 1

    first = keeping.chat(stream=True, max_tokens=9)
    assert (_said(first), _said(keeping.chat(stream=True, max_tokens=9))) == ("miss", "hit")
    again = keeping.chat(max_tokens=9)
    assert _said(again) == "hit"
    assert _texts(first) == [c["message"]["content"] for c in again.json["choices"]]
    last = events(first.body)[-2]
    assert again.json["choices"][0]["finish_reason"] == last["choices"][0]["finish_reason"]
    assert again.json["usage"]["completion_tokens"] == last["usage"]["completion_tokens"] == 9

    prompt = {"model": "smol", "prompt": "One, two,", "max_tokens": 3, "temperature": 0}
    kept = keeping.call("POST", "/v1/completions", prompt)
    stream = keeping.call("POST", "/v1/completions", {**prompt, "stream": True})
    assert (_said(kept), _said(stream)) == ("miss", "hit")
    pieces = [e["choices"][0]["text"] for e in events(stream.body)[:-1]]
    assert "".join(pieces) == kept.json["choices"][0]["text"]


def test_without_the_wish_nothing_is_kept(house: House) -> None:
    assert [_said(house.chat()) for _ in range(2)] == [None, None]
    assert "cache" not in house.audit()[0]


def _said(answer: Answer) -> str | None:
    assert answer.status == 200, answer.body
    return answer.headers.get("x-freehold-cache")


def _texts(answer: Answer) -> list[str]:
    texts: dict[int, str] = {}
    for event in events(answer.body):
        choices: list[dict[str, Any]] = [] if event == "[DONE]" else event["choices"]
        for choice in choices:
            said = choice["delta"].get("content") or ""
            texts[choice["index"]] = texts.get(choice["index"], "") + said
    return [texts[index] for index in sorted(texts)]
