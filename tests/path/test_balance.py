"""Two real replicas: conversations return to the one that has read them."""

from collections.abc import Callable
from typing import Any

import pytest

from freehold.store.snapshot import read_snapshot
from tests.house import House

Make = Callable[..., House]


@pytest.fixture
def pair(new_house: Make) -> House:
    house = new_house("--workers", "2")
    house.cli("deploy", "smol", "--replicas", "2", "--context", "2048", "--slots", "2",
              "--threads", "1")  # fmt: skip
    return house.start()


def test_interleaved_conversations_find_their_cache_again(pair: House) -> None:
    talks: list[list[dict[str, Any]]] = [
        [{"role": "system", "content": f"You are clerk {name}. " + f"Rule of {name}. " * 60}]
        for name in ("Ada", "Ben", "Cleo", "Dan")
    ]
    first, second = _turn(pair, talks, "Hello!"), _turn(pair, talks, "And now?")
    assert {replica for replica, _ in first} == {r["id"] for r in pair.replicas()}
    assert [replica for replica, _ in second] == [replica for replica, _ in first]
    assert all(cached < 20 for _, cached in first)  # how all of them begin, and no more
    assert all(cached > 200 for _, cached in second)

    ends = ("--url", "http://127.0.0.1:9/v1", "--url", "http://127.0.0.1:10/v1")
    pair.cli("deploy", *ends, "--weight", "2", "--weight", "1", "--as", "far", "--wait")
    snapshot = read_snapshot(pair.home / "run" / "snapshot.json")
    weights = {target.url: target.weight for target in snapshot.routes["far"].targets}
    assert weights == {"http://127.0.0.1:9/v1": 2.0, "http://127.0.0.1:10/v1": 1.0}


def _turn(house: House, talks: list[list[dict[str, Any]]], text: str) -> list[tuple[str, int]]:
    found = []
    for talk in talks:
        talk.append({"role": "user", "content": text})
        answer = house.chat(messages=talk, max_tokens=4)
        assert answer.status == 200, answer.body
        talk.append(answer.json["choices"][0]["message"])
        cached = answer.json["usage"]["prompt_tokens_details"]["cached_tokens"]
        found.append((house.audit()[0]["replica"], cached))
    return found
