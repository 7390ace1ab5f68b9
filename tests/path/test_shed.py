"""More than there is room for: sent away with a time to come back, never left to time out."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fake_engine import FakeEngine, fake_engine
from tests.house import Answer, House, eventually

SETTINGS = """
[quotas]
line = 4
longest_wait = 2.0
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[FakeEngine]:
    with fake_engine() as found:
        yield found


@pytest.fixture(scope="module")
def narrow(engine: FakeEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house whose only deployment takes two requests at once, and lets four wait."""
    home: Path = tmp_path_factory.mktemp("narrow") / "home"
    home.mkdir()
    (home / "freehold.toml").write_text(SETTINGS)
    house = House(home)
    try:
        house.start()
        body = {"name": "narrow", "urls": [engine.url], "slots": 2}
        assert house.call("PUT", "/api/deployments/narrow", body).status == 200
        assert house.call("GET", "/api/deployments/narrow?wait=30").json["state"] == "ready"
        yield house
    finally:
        house.close()


def _at_once(count: int, ask: Callable[[int], Answer]) -> tuple[list[Answer], float]:
    begun = time.monotonic()
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(ask, range(count))), time.monotonic() - begun


def test_a_line_that_is_full_sends_away_at_once(narrow: House) -> None:
    keys = [narrow.make_key("developer", team=f"team-{number % 2}") for number in range(30)]

    def ask(number: int) -> Answer:
        return narrow.chat(model="narrow", key=keys[number], seed=700)

    answers, took = _at_once(30, ask)
    found = Counter(answer.status for answer in answers)
    assert found[200] >= 2
    assert set(found) <= {200, 429, 503}
    assert found[200] < 30
    for answer in answers:
        if answer.status != 200:
            assert answer.error["code"] in ("unavailable.busy", "quota.share")
            assert int(answer.headers["retry-after"]) >= 1
    assert took < 20  # nobody waits for longer than he is told to, and the work itself
    assert narrow.chat(model="narrow", key=keys[0]).status == 200


def test_who_may_run_two_at_once_runs_two_at_once(narrow: House, engine: FakeEngine) -> None:
    key = narrow.make_key("developer", principal="pair")
    limit = {"of": "principal:pair", "measure": "concurrency", "amount": 2}
    assert narrow.call("PUT", "/api/limits", {"limits": [limit]}).status == 200
    with ThreadPoolExecutor(2) as pool:
        slow = [pool.submit(narrow.chat, model="narrow", key=key, seed=1500) for _ in range(2)]
        eventually(lambda: engine.running == 2, "both run", 10)
        third = narrow.chat(model="narrow", key=key)
        assert (third.status, third.error["code"]) == (429, "quota.concurrency")
        assert third.headers["retry-after"] == "1"
        assert third.error["details"]["amount"] == 2
        assert [each.result().status for each in slow] == [200, 200]
    assert narrow.chat(model="narrow", key=key).status == 200


@pytest.mark.parametrize(
    ("measure", "amount", "fits", "over"),
    [("tokens_in", 1000, "x" * 100, "x" * 3000), ("tokens_out", 20, "x", "x")],
)
def test_tokens_in_and_out_have_limits_of_their_own(
    narrow: House, measure: str, amount: int, fits: str, over: str
) -> None:
    of = f"only-{measure.replace('_', '-')}"
    key = narrow.make_key("developer", team=of)
    limit = {"of": f"team:{of}", "measure": measure, "amount": amount, "per": "day"}
    assert narrow.call("PUT", "/api/limits", {"limits": [limit]}).status == 200

    def ask(text: str, tokens: int) -> Answer:
        messages = [{"role": "user", "content": text}]
        return narrow.chat(model="narrow", key=key, messages=messages, max_tokens=tokens)

    assert ask(fits, 20).status == 200
    refused = ask(over, 21)
    assert (refused.status, refused.error["code"]) == (429, "quota.too_large")
    assert refused.error["details"]["measure"] == measure
