"""A stream whose engine is killed goes on from another replica, and nobody can tell."""

import http.client
import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from tests.faulty import TEXT, Faulty
from tests.house import House, events, eventually

QUESTION = [{"role": "user", "content": "Explain in detail how a rainbow comes about."}]
LENGTH = 200


@pytest.fixture(scope="module")
def pair(house: House) -> Iterator[House]:
    """A house with two replicas of the starter, called ``pair``."""
    body = {"name": "pair", "model": "smol", "replicas": 2, "context": 1024, "slots": 2}
    house.call("PUT", "/api/deployments/pair", body)
    both_ready(house)
    yield house
    house.call("DELETE", "/api/deployments/pair")


def both_ready(house: House) -> None:
    eventually(lambda: [r["state"] for r in house.replicas("pair")] == ["ready"] * 2, "both ready")


def broken(house: House, **fields: Any) -> tuple[list[Any], dict[str, Any]]:
    """Stream an answer whose engine is killed after some tokens; return events and record."""
    both_ready(house)
    body = {"model": "pair", "messages": QUESTION, "max_tokens": LENGTH, "stream": True, **fields}
    url = urlsplit(house.url)
    connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=60)
    headers = {"authorization": f"Bearer {house.key}", "content-type": "application/json"}
    path = "/v1/completions" if "prompt" in fields else "/v1/chat/completions"
    connection.request("POST", path, json.dumps(body), headers)
    response = connection.getresponse()
    assert response.status == 200
    data = b""
    while data.count(b"\n\n") < 15:
        data += response.readline()
    os.kill(at_work([r["pid"] for r in house.replicas("pair")]), signal.SIGKILL)
    data += response.read()
    connection.close()
    record = house.audit(id=str(response.getheader("x-freehold-request")))[0]
    return events(data), record


def at_work(pids: list[int]) -> int:
    """Return the process that computes: reports of what runs where come once a second only."""
    before = {pid: psutil.Process(pid).cpu_times().user for pid in pids}
    time.sleep(0.1)
    return max(pids, key=lambda pid: psutil.Process(pid).cpu_times().user - before[pid])


def text(found: list[Any]) -> str:
    return "".join(
        (choice.get("delta") or {}).get("content") or choice.get("text") or ""
        for event in found[:-1]
        for choice in event["choices"]
    )


def test_the_text_is_that_of_an_unbroken_answer(pair: House) -> None:
    whole = pair.chat(model="pair", messages=QUESTION, max_tokens=LENGTH).json
    found, record = broken(pair, temperature=0, stream_options={"include_usage": True})
    assert text(found) == whole["choices"][0]["message"]["content"]
    assert (record["outcome"], record["attempts"]) == ("ok", 2)
    assert found[-1] == "[DONE]"
    usage = found[-2]["usage"]
    assert usage["completion_tokens"] == whole["usage"]["completion_tokens"] == LENGTH
    assert usage["prompt_tokens"] == whole["usage"]["prompt_tokens"]
    assert_one_answer(found)


def test_an_answer_drawn_by_lot_goes_on_from_its_text(pair: House) -> None:
    whole = pair.chat(model="pair", messages=QUESTION, max_tokens=LENGTH).json
    found, record = broken(pair, temperature=0.3, ignore_eos=True)
    assert (record["outcome"], record["attempts"], record["estimated"]) == ("ok", 2, True)
    assert (record["tokens_out"], record["tokens_in"]) == (LENGTH, whole["usage"]["prompt_tokens"])
    assert found[-2]["choices"][0]["finish_reason"] == "length"
    assert len(text(found)) > 80
    assert_one_answer(found)


def test_a_completion_goes_on_from_its_text(pair: House) -> None:
    found, record = broken(pair, prompt="A rainbow is", temperature=0.3, ignore_eos=True)
    assert (record["outcome"], record["attempts"], record["tokens_out"]) == ("ok", 2, LENGTH)
    assert_one_answer(found)


def assert_one_answer(found: list[Any]) -> None:
    parts = found[:-1]
    for name in ("id", "model", "object", "system_fingerprint"):
        assert len({part[name] for part in parts}) == 1, name
    roles = [c for p in parts for c in p["choices"] if (c.get("delta") or {}).get("role")]
    assert len(roles) <= 1
    assert sum(c["finish_reason"] is not None for p in parts for c in p["choices"]) == 1
    assert found[-1] == "[DONE]"


@pytest.fixture(scope="module")
def faulty() -> Iterator[Faulty]:
    with Faulty(pace=0.02) as server:
        yield server


@pytest.mark.parametrize("fault", ["cut", "stall", "frame", "body", "unusual", "overrun"])
@pytest.mark.parametrize("how", ["restart", "prefill", "final_message"])
def test_endpoints_that_break_off(house: House, faulty: Faulty, fault: str, how: str) -> None:
    name = f"{fault}-{how}"
    body: dict[str, Any] = {"name": name, "replicas": 2, "token_timeout": 0.3}
    body["urls"] = [faulty.base(fault, how), faulty.base("well", name)]
    if how != "restart":
        body["continues"] = how
    house.call("PUT", f"/api/deployments/{name}", body)
    assert house.call("GET", f"/api/deployments/{name}?wait=10").json["state"] == "ready"
    for _ in range(6):
        fields = {"temperature": 0} if how == "restart" else {"temperature": 0.7}
        answer = house.chat(model=name, stream=True, max_tokens=50, **fields)
        found = events(answer.body)
        assert text(found) == TEXT
        assert_one_answer(found)
        record = house.audit(id=answer.headers["x-freehold-request"])[0]
        assert record["tokens_out"] == 10
        if record["attempts"] == 2:
            break
    assert record["attempts"] == 2
    house.call("DELETE", f"/api/deployments/{name}")
    if how == "restart":
        return
    asked = [sent for path, sent in faulty.bodies if f"well.{name}" in path][-1]
    assert asked["messages"][-1]["role"] == "assistant"
    assert 0 < asked["max_tokens"] < 50
    assert asked.get("continue_final_message") == (True if how == "final_message" else None)
    assert record["estimated"] is True


def test_what_cannot_go_on_ends_with_one_clear_error(house: House, faulty: Faulty) -> None:
    def broken_off(
        name: str, *urls: str, continues: str | None = None, **fields: Any
    ) -> tuple[list[Any], dict[str, Any]]:
        body = {"name": name, "urls": urls, "replicas": len(urls), "continues": continues}
        house.call("PUT", f"/api/deployments/{name}", body)
        house.call("GET", f"/api/deployments/{name}?wait=10")
        for _ in range(6):
            answer = house.chat(model=name, stream=True, **fields)
            found = events(answer.body)
            if found[-1] != "[DONE]":
                break
        assert list(found[-1]) == ["error"]
        assert answer.body.count(b'"error"') == 1
        house.call("DELETE", f"/api/deployments/{name}")
        return found, house.audit(id=answer.headers["x-freehold-request"])[0]

    cut, well = faulty.base("cut", "x"), faulty.base("well", "x")
    _, record = broken_off("by-lot", cut, well, temperature=0.7)
    assert (record["attempts"], record["error"]) == (1, "unavailable.engine_cut")
    form = {"type": "json_object"}
    _, record = broken_off(
        "a-form", cut, well, temperature=0.7, response_format=form, continues="prefill"
    )
    assert (record["attempts"], record["error"]) == (1, "unavailable.engine_cut")
    other = faulty.base("other", "x")
    short = faulty.base("short", "x")
    _, record = broken_off("less-text", faulty.base("cut", "z"), short, temperature=0)
    assert (record["attempts"], record["error"]) == (2, "unavailable.engine_differs")
    found, record = broken_off("another-text", faulty.base("cut", "y"), other, temperature=0)
    assert (record["attempts"], record["error"]) == (2, "unavailable.engine_differs")
    assert text([*found[:-1], None]) == TEXT[: len(text([*found[:-1], None]))]
    assert record["outcome"] == "failed"
