"""Stored responses, through real processes: continued, shown, deleted, and nobody else's."""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.house import Answer, House
from tests.scripted import Script, scripted

TEXT = [
    {"choices": [{"index": 0, "delta": {"content": "Hello"}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Script]:
    with scripted() as made:
        yield made


@pytest.fixture
def script(endpoint: Script) -> Script:
    endpoint.events = list(TEXT)
    return endpoint


@pytest.fixture(scope="module")
def house(endpoint: Script, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house in front of an engine that speaks only chat; two gateways."""
    yield from running(tmp_path_factory.mktemp("storing") / "home", endpoint, "--workers", "2")


def running(home: Path, endpoint: Script, *arguments: str) -> Iterator[House]:
    made = House(home, arguments)
    made.cli("deploy", "--url", endpoint.url, "--as", "m")
    try:
        yield made.start()
    finally:
        made.close()


def folder(house: House, principal: str) -> Path:
    return house.home / "responses" / sha256(principal.encode()).hexdigest()[:32]


def ask(house: House, key: str = "admin", **fields: Any) -> Answer:
    return house.call("POST", "/v1/responses", {"model": "m", "input": "Hi", **fields}, key=key)


def test_a_conversation_goes_on_in_any_gateway_and_is_nobody_elses(
    house: House, script: Script
) -> None:
    first = ask(house, instructions="Be brief.").json
    assert (first["status"], first["store"]) == ("completed", True)
    name = first["id"]
    for _ in range(4):
        second = ask(house, input="And?", previous_response_id=name, stream=True)
        assert second.status == 200
    assert script.asked["messages"] == [  # type: ignore[index]
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "And?"},
    ]
    assert house.call("GET", f"/v1/responses/{name}").json == first
    items = house.call("GET", f"/v1/responses/{name}/input_items?order=asc").json
    assert items["data"][0]["content"] == [{"type": "input_text", "text": "Hi"}]
    assert (items["has_more"], items["first_id"]) == (False, items["data"][0]["id"])
    assert house.call("GET", f"/v1/responses/{name}/input_items?limit=0").status == 400

    stranger = house.make_key("developer")
    auditor = house.make_key("auditor")
    for path in (f"/v1/responses/{name}", f"/v1/responses/{name}/input_items"):
        assert house.call("GET", path, key=stranger).status == 404
        assert house.call("GET", path, key=auditor).status == 403
        assert house.call("GET", path, key=None).status == 401
    assert house.call("DELETE", f"/v1/responses/{name}", key=stranger).status == 404
    refused = ask(house, stranger, previous_response_id=name)
    assert (refused.status, refused.error["code"]) == (404, "missing.response")

    deleted = house.call("DELETE", f"/v1/responses/{name}")
    assert deleted.json == {"id": name, "object": "response", "deleted": True}
    assert house.call("GET", f"/v1/responses/{name}").status == 404
    assert ask(house, previous_response_id=name).status == 404
    records = [r for r in house.audit(limit="20") if r["action"] == "response:remove"]
    record = next(r for r in records if r["outcome"] == "ok")
    assert (record["subject"], record["status"]) == (name, 200)
    assert "Hello" not in (house.home.parent / f"{house.home.name}.log").read_text()


def test_what_shall_not_be_stored_is_not(house: House, script: Script) -> None:
    key = house.make_key("operator")
    made = ask(house, key, store=False).json
    assert made["store"] is False
    assert house.call("GET", f"/v1/responses/{made['id']}", key=key).status == 404
    assert not folder(house, "a-operator").exists()


def test_an_operator_can_switch_it_off(script: Script, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "freehold.toml").write_text("[responses]\nstore = false\n")
    with contextmanager(running)(home, script) as house:
        made = ask(house).json
        assert made["store"] is False
        assert house.call("GET", f"/v1/responses/{made['id']}").status == 404
        refused = ask(house, store=True)
        assert (refused.status, refused.error["param"]) == (400, "store")


@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_stored_is_said_before_the_end(
    house: House, script: Script, stream: bool
) -> None:
    owner = f"unlucky-{stream}"
    key = house.call("POST", "/api/keys", {"principal": owner}).json["key"]
    (house.home / "responses").mkdir(exist_ok=True)
    folder(house, owner).write_text("in the way")
    answer = ask(house, key, stream=stream)
    if stream:
        assert b"response.failed" in answer.body
        assert b"response.completed" not in answer.body
    else:
        assert answer.status == 503
    assert b"unavailable.responses" in answer.body
    assert ask(house, key, store=False, stream=stream).status == 200


def test_a_response_that_failed_is_not_stored(house: House, script: Script) -> None:
    key = house.call("POST", "/api/keys", {"principal": "cut-off"}).json["key"]
    script.events = [TEXT[0], {"pause": True}, {"cut": True}]
    answer = ask(house, key, stream=True)
    assert b"response.failed" in answer.body
    assert not folder(house, "cut-off").exists()
