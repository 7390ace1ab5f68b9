"""The look at what is left sees what a request holds: else it would prove nothing."""

import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.fake_engine import fake_engine
from tests.house import IDLE_TASKS, House, eventually


def test_what_a_request_holds_is_seen_while_it_runs_and_not_after(
    new_house: Callable[..., House],
) -> None:
    house = new_house(empty=True).start()
    with fake_engine() as engine:
        body = {"name": "fake", "urls": [engine.url], "slots": 1}
        assert house.call("PUT", "/api/deployments/fake", body).status == 200
        assert house.call("GET", "/api/deployments/fake?wait=30").json["state"] == "ready"
        house.check_nothing_left()
        begun = [_ask(house), _ask(house)]  # one runs, one stands in line
        (seen,) = eventually(lambda: _with(house, requests=2, links=1), "they are seen", 10)
        assert seen["reservations"] == 4  # each holds its budgets, one a place, one waits for it
        assert seen["inflight"] == 1
        assert seen["tasks"] > IDLE_TASKS + 1
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tests.house.LET_GO", 0.3)
            with pytest.raises(AssertionError, match="reservations"):
                house.check_nothing_left()
        for connection in begun:
            connection.close()
        house.check_nothing_left()
        eventually(lambda: not engine.running, "the engine is let go")


def _ask(house: House) -> socket.socket:
    host, _, port = house.url.removeprefix("http://").rpartition(":")
    asked = {
        "model": "fake", "messages": [{"role": "user", "content": "x"}], "stream": True,
        "max_tokens": 2000, "seed": 20,
    }  # fmt: skip
    body = json.dumps(asked).encode()
    connection = socket.create_connection((host, int(port)), 10)
    connection.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (house.key.encode(), len(body), body)
    )
    return connection


def _with(house: House, **wanted: Any) -> list[dict[str, Any]] | None:
    found = house.standings() or []
    return found if all(each[n] == v for each in found for n, v in wanted.items()) else None
