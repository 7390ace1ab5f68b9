"""Endpoints as deployments, replicas, fallbacks, waking and unloading."""

import json
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.house import House, events, eventually
from tests.servers import reply, serving

Make = Callable[..., House]


@pytest.fixture(scope="module")
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house without a model, for endpoints that each test brings with it."""
    house = House(tmp_path_factory.mktemp("endpoints") / "home")
    try:
        yield house.start()
    finally:
        house.close()


def test_another_freehold_is_an_endpoint(own_house: House, house: House, tmp_path: Path) -> None:
    secret = tmp_path / "upstream.key"
    secret.write_text(house.make_key("developer"))
    own_house.cli(
        "deploy", "--url", f"{house.url}/v1", "--as", "far", "--upstream-model", "smol",
        "--upstream-key", f"file:{secret}", "--place", "site", "--wait",
    )  # fmt: skip
    assert own_house.chat(model="far").json["usage"]["completion_tokens"] == 8
    found = events(own_house.chat(model="far", stream=True).body)
    assert found[-1] == "[DONE]"
    assert found[-2]["usage"]["completion_tokens"] == 8
    assert secret.read_text() not in own_house.cli("export")
    record = own_house.audit(deployment="far")[0]
    assert (record["tokens_out"], record.get("estimated")) == (8, None)


def test_a_dead_endpoint_fails_over_to_a_live_one(own_house: House, house: House) -> None:
    live = f"{house.url}/v1"
    own_house.environment = {}
    with serving(lambda r: _consumed(r, lambda: reply(r, 500, b'{"error": "down"}'))) as broken:
        (own_house.home / "k").write_text(house.key)
        own_house.cli(
            "deploy", "--url", "http://127.0.0.1:9/v1", "--url", f"{broken}/v1", "--url", live,
            "--as", "three", "--upstream-model", "smol", "--upstream-key",
            f"file:{own_house.home / 'k'}", "--wait",
        )  # fmt: skip
        for _ in range(6):
            assert own_house.chat(model="three").status == 200
    attempts = [record["attempts"] for record in own_house.audit(deployment="three")]
    assert max(attempts) == 3


def test_fallbacks_answer_when_the_first_cannot(own_house: House) -> None:
    document = """
        [[deployments]]
        name = "first"
        urls = ["http://127.0.0.1:9/v1"]
        fallbacks = ["smol"]
        [[deployments]]
        name = "smol"
        model = "smol"
    """
    own_house.cli("apply", "-", text=document)
    answer = eventually(lambda: _ok(own_house, "first"), "an answer")
    assert answer.headers["x-freehold-deployment"] == "smol"


@pytest.mark.parametrize(
    ("answer", "status", "code", "src"),
    [
        ((400, b'{"error": {"message": "no such thing"}}'), 400, "engine.400", "engine"),
        ((429, b'{"error": {"message": "slow down"}}'), 503, "unavailable.engine_busy", "freehold"),
        ((401, b"nope"), 503, "unavailable.upstream_key", "freehold"),
        ((404, b"no such model"), 503, "unavailable.engine_error", "freehold"),
        ((500, b"<html>"), 503, "unavailable.engine_error", "freehold"),
        ((200, b"not json"), 503, "unavailable.engine_protocol", "freehold"),
        ((200, b"{}"), 503, "unavailable.engine_protocol", "freehold"),
        ((200, b'{"choices": 3}'), 503, "unavailable.engine_protocol", "freehold"),
    ],
)
def test_what_a_bad_endpoint_says_is_passed_on_or_named(
    endpoints: House, answer: tuple[int, bytes], status: int, code: str, src: str
) -> None:
    with serving(lambda request: _consumed(request, lambda: reply(request, *answer))) as url:
        endpoints.cli("deploy", "--url", f"{url}/v1", "--as", "bad", "--wait")
        found = endpoints.chat(model="bad")
    assert (found.status, found.error["code"], found.error["src"]) == (status, code, src)


def test_an_endpoint_that_breaks_off_ends_the_stream_with_an_error(endpoints: House) -> None:
    event = {"choices": [{"index": 0, "delta": {"content": "Hel"}, "finish_reason": None}]}
    data = b"data: " + json.dumps(event).encode() + b"\n\n"

    def cut(request: BaseHTTPRequestHandler) -> None:
        headers = {"content-type": "text/event-stream", "content-length": "100000"}
        _consumed(request, lambda: reply(request, 200, data, headers, cut=len(data)))

    with serving(cut) as url:
        endpoints.cli("deploy", "--url", f"{url}/v1", "--as", "cut", "--wait")
        answer = endpoints.chat(model="cut", stream=True)
    found = events(answer.body)
    assert found[0]["choices"][0]["delta"]["content"] == "Hel"
    assert found[-1]["error"]["code"].startswith("unavailable.engine")
    assert "[DONE]" not in found
    record = endpoints.audit(id=answer.headers["x-freehold-request"])[0]
    assert (record["outcome"], record["tokens_out"], record["estimated"]) == ("failed", 1, True)


def test_an_endpoint_without_usage_gets_an_estimate(endpoints: House) -> None:
    body = {"choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}]}
    data = json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    with serving(lambda r: _consumed(r, lambda: reply(r, 200, data, headers))) as url:
        endpoints.cli("deploy", "--url", f"{url}/v1", "--as", "plain", "--wait")
        answer = endpoints.chat(model="plain")
    assert answer.json["usage"]["estimated"] is True
    assert answer.json["usage"]["prompt_tokens"] > 0


def test_an_endpoint_that_stays_silent_times_out(new_house: Make) -> None:
    settings = "[runtime]\nheaders_timeout = 1.0\nretries = 0\n"
    house = new_house(empty=True, settings=settings).start()
    with serving(lambda request: _consumed(request, lambda: time.sleep(5))) as url:
        house.cli("deploy", "--url", f"{url}/v1", "--as", "silent", "--wait")
        answer = house.chat(model="silent")
    assert (answer.status, answer.error["code"]) == (504, "unavailable.headers_deadline")


def test_an_idle_model_unloads_and_loads_on_request(new_house: Make) -> None:
    house = new_house(settings="[runtime]\nidle_unload = 1.0\n").start()
    assert house.chat().status == 200
    eventually(lambda: house.deployment()["state"] == "idle", "unloaded", 20)
    # Its process ends once every gateway has said that it sends nothing there any more.
    eventually(
        lambda: house.call("GET", "/api/status").json["memory"]["resident"] == 0, "its memory", 20
    )
    answer = house.chat()
    assert answer.status == 503
    assert answer.error["code"] == "unavailable.loading"
    assert 0 <= answer.error["details"]["progress"] <= 1
    assert int(answer.headers["retry-after"]) >= 1
    assert house.chat(headers={"prefer": "wait=60"}).status == 200
    eventually(lambda: house.deployment()["state"] == "idle", "unloaded again", 20)


def test_what_fits_no_memory_is_told_and_room_is_made_for_what_is_asked(new_house: Make) -> None:
    budget = 600 * 2**20  # one copy of the model fits, two do not
    house = new_house(settings=f"[runtime]\nmemory = {budget}\n").start()
    house.cli("deploy", "smol", "--as", "second")
    answer = house.chat(model="second", headers={"prefer": "wait=60"})
    assert answer.status == 200, answer.body
    states = {name: house.deployment(name)["state"] for name in ("smol", "second")}
    assert states == {"smol": "idle", "second": "ready"}
    assert house.chat(headers={"prefer": "wait=60"}).status == 200
    house.cli("deploy", "smol", "--as", "huge", "--slots", "4", "--context", "8192")
    small = new_house(settings="[runtime]\nmemory = 100000000\n", name="small").start()
    refused = small.chat()
    assert refused.status == 503
    assert "raise runtime.memory" in refused.error["message"]


def test_two_replicas_share_the_load(own_house: House) -> None:
    own_house.cli("deploy", "smol", "--as", "pair", "--replicas", "2", "--context", "2048")
    eventually(
        lambda: [r["state"] for r in own_house.replicas("pair")] == ["ready"] * 2, "both ready"
    )
    for _ in range(4):
        assert own_house.chat(model="pair").status == 200
    assert len({record["replica"] for record in own_house.audit(deployment="pair")}) == 2


def _consumed(request: BaseHTTPRequestHandler, act: Callable[[], None]) -> None:
    request.rfile.read(int(request.headers.get("content-length") or 0))
    act()


def _ok(house: House, model: str) -> object:
    answer = house.chat(model=model)
    return answer if answer.status == 200 else None
