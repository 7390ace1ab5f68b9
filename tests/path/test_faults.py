"""The sixteen faults, streamed and not: a whole answer where one can be had, else one clear error.

One house with short deadlines; every case has endpoints, and so circuits, of its own.
"""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.faulty import FAULTS, Faulty, verdict
from tests.house import QUESTION, Answer, House, eventually

SETTINGS = """
[runtime]
connect_timeout = 0.5
headers_timeout = 0.4
first_token_timeout = 0.4
token_timeout = 0.3
total_timeout = 3.0
retries = 1
retry_wait = 0.2
"""
CASES = [(fault, stream) for fault in FAULTS for stream in (False, True)]
AFTER = {"429-after": 1, "429": 1, "500": 1, "503": 1, "refused": 1, "reset": 1}
"""Faults after which the client is told when to come back; in seconds."""


@pytest.fixture(scope="module")
def faulty() -> Iterator[Faulty]:
    with Faulty() as server:
        yield server


@pytest.fixture(scope="module")
def place(faulty: Faulty, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house whose deployments are pairs of endpoints, both ways for each fault."""
    home = tmp_path_factory.mktemp("faults") / "home"
    home.mkdir()
    (home / "freehold.toml").write_text(SETTINGS)
    house = House(home, ("--workers", "2")).start()
    document = "".join(
        _table(f"{fault}-{kind}", urls)
        for fault in FAULTS
        for kind, urls in (
            ("one", (faulty.base(fault), faulty.base("well", fault))),
            ("both", (faulty.base(fault, "a"), faulty.base(fault, "b"))),
        )
    )
    try:
        house.cli("apply", "-", text=document)
        eventually(lambda: {d["state"] for d in _status(house)["deployments"]} == {"ready"}, "up")
        house.call("GET", "/api/deployments/refused-one?wait=10")  # gateways know of all
        yield house
        eventually(lambda: faulty.active == 0, "no connection is left", 5)
        eventually(lambda: not any(_inflight(house)), "no request is left in flight", 5)
        states = {r["circuit"] for d in _status(house)["deployments"] for r in d["replicas"]}
        assert "closed" in states
    finally:
        house.close()


@pytest.mark.parametrize(("fault", "stream"), CASES, ids=lambda value: str(value))
def test_another_replica_answers(place: House, faulty: Faulty, fault: str, stream: bool) -> None:
    name = f"{fault}-one"
    for _ in range(20):  # the well one may come first, and a busy one is left alone for a second
        answer = ask(place, name, stream)
        assert verdict(answer.status, answer.body, stream=stream) == "answer", answer.body
        record = place_record(place, answer)
        assert (record["outcome"], record["status"], record["tokens_out"]) == ("ok", 200, 10)
        if record["attempts"] > 1:
            break
        time.sleep(0.05)
    else:
        raise AssertionError("the faulty one was never asked")
    assert record["attempts"] == 2


@pytest.mark.parametrize(("fault", "stream"), CASES, ids=lambda value: str(value))
def test_with_nobody_well_there_is_one_clear_error(
    place: House, faulty: Faulty, fault: str, stream: bool
) -> None:
    answer = ask(place, f"{fault}-both", stream)
    record = place_record(place, answer)
    if fault == "empty":  # all say the same: then it is the answer
        assert verdict(answer.status, answer.body, stream=stream, text="") == "answer"
        assert (record["outcome"], record["attempts"]) == ("ok", 2)
        return
    assert verdict(answer.status, answer.body, stream=stream) == "error", answer.body
    assert answer.status == 200 or answer.error["message"]
    assert answer.body.count(b'"error"') == 1
    assert b"sk-very-secret" not in answer.body
    assert b"[DONE]" not in answer.body
    assert record["outcome"] == "failed"
    assert record["attempts"] >= 2
    assert record["error"].startswith("unavailable.")
    if answer.status != 200:
        assert answer.status in (503, 504)
        assert record["error"] == answer.error["code"]
        assert answer.error["src"] == "freehold"
        if fault in AFTER:
            assert int(answer.headers["retry-after"]) == AFTER[fault]
    else:
        assert stream
        assert b'"The"' in answer.body  # a stream begins with a word, or not at all
    if fault == "auth":
        assert "upstream_key" in answer.error["message"]
        assert "retry-after" not in answer.headers


def test_the_client_s_own_mistake_is_passed_on_at_once(place: House, faulty: Faulty) -> None:
    for stream in (False, True):
        deploy(place, "mistaken", faulty.base("refuse"), faulty.base("well", "m"))
        for _ in range(8):
            answer = ask(place, "mistaken", stream)
            assert place_record(place, answer)["attempts"] == 1
            if answer.status == 400:
                assert (answer.error["src"], answer.error["code"]) == ("engine", "engine.400")
                break
        else:
            raise AssertionError("the strict one was never asked")


@pytest.mark.parametrize(
    ("fault", "stage"),
    [("late", "headers"), ("silent", "first_token"), ("stall", "token")],
)
def test_an_error_says_which_deadline_passed(place: House, fault: str, stage: str) -> None:
    answer = ask(place, f"{fault}-both", stream=True)
    line = answer.body.split(b"data: ")[-1] if answer.status == 200 else answer.body
    error = json.loads(line)["error"]
    assert error["code"] == f"unavailable.{stage}_deadline"
    assert error["details"]["deadline"] == stage
    assert answer.status in (200, 504)


@pytest.mark.parametrize("stream", [False, True])
def test_all_the_words_without_an_end_are_no_whole_answer(
    place: House, faulty: Faulty, stream: bool
) -> None:
    deploy(place, f"unended-{stream:d}", faulty.base("unfinished", f"{stream:d}"))
    answer = ask(place, f"unended-{stream:d}", stream)
    assert verdict(answer.status, answer.body, stream=stream) == "error"
    assert place_record(place, answer)["outcome"] == "failed"


def test_what_fails_after_the_end_has_lost_nothing_but_counts(place: House, faulty: Faulty) -> None:
    deploy(place, "uncounted", faulty.base("nousage"))
    answer = ask(place, "uncounted", stream=True)
    assert verdict(answer.status, answer.body, stream=True) == "answer"
    record = place_record(place, answer)
    assert (record["attempts"], record["outcome"], record["estimated"]) == (1, "ok", True)


def test_an_empty_answer_is_no_reason_for_a_fallback(place: House, faulty: Faulty) -> None:
    deploy(place, "terse", faulty.base("empty", "terse"), fallbacks=["uncounted"])
    answer = ask(place, "terse", stream=False)
    assert verdict(answer.status, answer.body, stream=False, text="") == "answer"
    assert place_record(place, answer)["attempts"] == 1


def test_a_wait_that_was_asked_for_is_kept_where_nobody_else_is(
    place: House, faulty: Faulty
) -> None:
    deploy(place, "once", faulty.base("once"))
    answer = ask(place, "once", stream=False)
    assert verdict(answer.status, answer.body, stream=False) == "answer"
    assert place_record(place, answer)["attempts"] == 2


def test_a_client_may_shorten_the_whole(place: House, faulty: Faulty) -> None:
    answer = ask(place, "late-both", stream=False, headers={"x-freehold-timeout": "0.15"})
    assert answer.status == 504
    assert answer.error["code"] == "unavailable.total_deadline"
    assert answer.error["details"]["seconds"] == 0.15
    for wrong in ("0", "-1", "soon", "inf", "nan"):
        answer = ask(place, "late-both", stream=False, headers={"x-freehold-timeout": wrong})
        assert (answer.status, answer.error["code"]) == (400, "invalid.header")


def test_a_deployment_has_deadlines_of_its_own(place: House, faulty: Faulty) -> None:
    deploy(place, "patient", faulty.base("stall", "p"), token_timeout=0.05, total_timeout=0.6)
    answer = ask(place, "patient", stream=True)
    error = json.loads(answer.body.split(b"data: ")[-1])["error"]
    assert error["details"] == {"deadline": "token", "seconds": 0.05}
    document = place.call("GET", "/api/desired").json["document"]
    assert "token_timeout = 0.05" in document


def test_a_circuit_opens_and_shows(place: House, faulty: Faulty) -> None:
    deploy(place, "fragile", faulty.base("500", "fragile"), faulty.base("well", "fragile"))
    for _ in range(12):
        assert ask(place, "fragile", stream=False).status == 200
    before = faulty.seen["500.fragile"]
    circuits = {r["circuit"] for r in place.deployment("fragile")["replicas"]}
    assert circuits in ({"closed", "open"}, {"closed", "half-open"})
    for _ in range(6):
        assert ask(place, "fragile", stream=False).status == 200
    assert faulty.seen["500.fragile"] <= before + 2, "an open circuit is left alone but for probes"


def test_the_last_one_is_asked_whatever_its_circuit_says(place: House, faulty: Faulty) -> None:
    deploy(place, "alone", faulty.base("500", "alone"))
    for _ in range(4):
        assert ask(place, "alone", stream=False).status == 503
    before = faulty.seen["500.alone"]
    assert place.deployment("alone")["replicas"][0]["circuit"] == "open"
    assert ask(place, "alone", stream=False).status == 503
    assert faulty.seen["500.alone"] > before


def test_a_hedge_wins_and_the_other_is_cancelled(place: House, faulty: Faulty) -> None:
    urls = (faulty.base("late", "h"), faulty.base("well", "h"))
    deploy(place, "hedged", *urls, headers_timeout=2.0, hedge_ms=50)
    for stream in (False, True):
        for _ in range(3):
            answer = ask(place, "hedged", stream)
            assert verdict(answer.status, answer.body, stream=stream) == "answer"
            record = place_record(place, answer)
            if record["attempts"] == 2:
                break
        assert (record["attempts"], record["outcome"]) == (2, "ok")
    deploy(place, "hedged-by-header", *urls, headers_timeout=2.0)
    seen = []
    for _ in range(6):
        answer = ask(place, "hedged-by-header", False, headers={"x-freehold-hedge-ms": "30"})
        seen.append(place_record(place, answer)["attempts"])
    assert max(seen) == 2


def ask(house: House, model: str, stream: bool, headers: dict[str, str] | None = None) -> Answer:
    body = {"model": model, "messages": QUESTION, "temperature": 0, "stream": stream}
    return house.call("POST", "/v1/chat/completions", body, headers=headers, timeout=10)


def deploy(house: House, name: str, *urls: str, **fields: Any) -> None:
    body = {"name": name, "urls": urls, "replicas": len(urls), **fields}
    assert house.call("PUT", f"/api/deployments/{name}", body).status == 200
    found = house.call("GET", f"/api/deployments/{name}?wait=10").json
    assert found["state"] == "ready"


def place_record(house: House, answer: Answer) -> dict[str, Any]:
    """Return the one record of a request."""
    records = house.audit(id=answer.headers["x-freehold-request"])
    assert len(records) == 1
    return records[0]


def _table(name: str, urls: tuple[str, ...]) -> str:
    return f"[[deployments]]\nname = {name!r}\nurls = {list(urls)}\nreplicas = 2\n"


def _status(house: House) -> Any:
    return house.call("GET", "/api/status").json


def _inflight(house: House) -> list[int]:
    return [gateway["inflight"] for gateway in _status(house)["gateways"]]
