"""The clock of the machine jumps while everything runs: ahead, back, over midnights and months.

Real processes with a wall clock that the test moves (``tests/clock``): what was spent in a window
stays spent there, whatever the clock said meanwhile, and nothing that only lasts is hurried.
"""

import os
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.fake_engine import FakeEngine, fake_engine
from tests.house import Answer, House, events, eventually

ROOT = Path(__file__).parents[1]
HOUR, DAY = 3600.0, 86400.0
EVE = datetime(2027, 1, 31, 23, 30, tzinfo=UTC).timestamp()
"""Half an hour before a midnight that ends a month."""


class Clock:
    """The clock of a house."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.write_bytes(bytes(8))

    def set(self, moment: float) -> None:
        """Have it say a moment, and go on from there."""
        with self._path.open("r+b") as file:
            os.pwrite(file.fileno(), struct.pack("d", moment - time.time()), 0)


@pytest.fixture(scope="module")
def engine() -> Iterator[FakeEngine]:
    with fake_engine() as found:
        yield found


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Clock:
    made = Clock(tmp_path_factory.mktemp("clock") / "moved")
    made.set(EVE)
    return made


@pytest.fixture(scope="module")
def moved(
    engine: FakeEngine, clock: Clock, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("moved")
    environment = {"PYTHONPATH": str(ROOT / "clock"), "TEST_CLOCK": str(clock._path)}
    house = House(folder / "home", ("--workers", "2"), environment)
    try:
        house.start()
        house.cli("deploy", "--url", engine.url, "--as", "fake", "--wait")
        yield house
    finally:
        house.close()


@pytest.fixture(autouse=True)
def at_the_eve(clock: Clock) -> None:
    clock.set(EVE)


def limited(house: House, team: str, *limits: tuple[str, int, str]) -> str:
    key = house.make_key("developer", team=team)
    wanted = [{"of": f"team:{team}", "measure": m, "amount": n, "per": per} for m, n, per in limits]
    assert house.call("PUT", "/api/limits", {"limits": wanted}).status == 200
    return key


def ask(house: House, key: str, **fields: Any) -> Answer:
    """Ask once; while what was spent is being counted anew the answer is 503, and asked again."""

    def answer() -> Answer | None:
        found = house.chat(model="fake", key=key, **fields)
        counting = found.status == 503 and found.error["code"] == "unavailable.limits"
        return None if counting else found

    found = eventually(answer, "an answer", 20)
    assert isinstance(found, Answer)
    return found


def spent(house: House, team: str, per: str) -> int:
    found = house.call("GET", f"/api/limits?of=team:{team}").json
    return int(next(each["spent"] for each in found if each["per"] == per))


def test_a_day_and_a_month_are_theirs_however_often_the_clock_crosses_their_ends(
    moved: House, clock: Clock
) -> None:
    key = limited(moved, "midnight", ("requests", 3, "day"), ("requests", 5, "month"))

    def statuses(moment: float, count: int) -> list[int]:
        clock.set(moment)
        return [ask(moved, key).status for _ in range(count)]

    assert statuses(EVE, 2) == [200, 200]
    assert statuses(EVE + HOUR, 4) == [200, 200, 200, 429]  # another day, another month
    assert statuses(EVE + 600, 2) == [200, 429]  # back over midnight: one was left
    clock.set(EVE + 1200)
    refused = ask(moved, key)
    assert refused.status == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 600
    assert statuses(EVE - HOUR, 1) == [429]  # an hour back is the same day
    assert statuses(EVE + DAY, 1) == [429]  # ahead by a day: that one is used up too
    assert statuses(EVE + 2 * DAY, 3) == [200, 200, 429]  # its month has 5
    assert (spent(moved, "midnight", "day"), spent(moved, "midnight", "month")) == (2, 5)


def test_windows_that_the_cells_forgot_are_counted_again(moved: House, clock: Clock) -> None:
    key = limited(moved, "far", ("requests", 1, "day"), ("requests", 2, "minute"))
    days = [EVE + number * DAY for number in range(7)]
    for day in days:
        clock.set(day)
        assert ask(moved, key).status == 200
    for day in (days[0], days[3], days[1], days[6]):
        clock.set(day)
        assert ask(moved, key).status == 429
        assert spent(moved, "far", "day") == 1
    clock.set(days[0])
    other = limited(moved, "near", ("requests", 2, "minute"))
    for moment in (EVE, EVE + DAY, EVE + 2 * DAY, EVE + 3 * DAY, EVE + 4 * DAY, EVE):
        clock.set(moment)
        assert ask(moved, other).status == 200
    assert ask(moved, other).status == 429  # two in the first minute, one of them long ago


def test_what_runs_while_the_clock_jumps_ends_well_and_counts_where_it_began(
    moved: House, clock: Clock, engine: FakeEngine
) -> None:
    """Deadlines, leases and reservations last as long as they last."""
    key = limited(moved, "runs", ("tokens", 10_000, "day"), ("concurrency", 3, "total"))
    slow = {"stream": True, "max_tokens": 40, "seed": 50}
    for moments in ((EVE + DAY, EVE + 40 * DAY), (EVE - HOUR, EVE - 400 * DAY), (EVE + HOUR, EVE)):
        clock.set(EVE)
        before = spent(moved, "runs", "day")
        with ThreadPoolExecutor(2) as pool:
            running = [pool.submit(ask, moved, key, **slow) for _ in range(2)]
            eventually(lambda: engine.running == 2, "they run", 10)
            for moment in moments:
                clock.set(moment)
                time.sleep(0.3)
            answers = [each.result() for each in running]
        for answer in answers:
            assert answer.status == 200
            told = events(answer.body)
            assert told[-1] == "[DONE]"
            assert told[-2]["choices"][0]["finish_reason"] == "stop"
        clock.set(EVE)
        eventually(lambda: spent(moved, "runs", "day") == before + _tokens(answers), "counted", 10)  # noqa: B023
        found = moved.call("GET", "/api/limits?of=team:runs").json
        assert all(each["reserved"] == 0 for each in found)
        assert ask(moved, key).status == 200
        assert moved.deployment("fake")["state"] == "ready"


def _tokens(answers: list[Answer]) -> int:
    found = [event["usage"] for answer in answers for event in events(answer.body)
             if isinstance(event, dict) and event.get("usage")]  # fmt: skip
    return sum(usage["total_tokens"] for usage in found)


def test_a_key_holds_until_its_moment_whatever_the_clock_said_before(
    moved: House, clock: Clock
) -> None:
    key = moved.make_key("developer", principal="guest", expires_in=2 * HOUR)
    for moment, status in (
        (EVE, 200), (EVE + HOUR, 200), (EVE + 3 * HOUR, 401), (EVE + DAY, 401), (EVE + HOUR, 200),
        (EVE - DAY, 200), (EVE + 2 * HOUR + 1, 401),
    ):  # fmt: skip
        clock.set(moment)
        assert ask(moved, key).status == status, moment - EVE
