"""Cells set from the record: fresh, beside gateways that run, after the clock went back."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from freehold.control.spending import MINUTES_KEPT, Spending, oldest_kept
from freehold.policy.cells import CLOSED, LOST, RING, Cells
from freehold.policy.settle import take_slot
from freehold.record.entry import Entry, encode
from freehold.record.ledger import take_in_journals
from freehold.record.windows import number
from freehold.store.database import Database
from freehold.store.snapshot import Limit
from tests.unit.policy.crash import NOW

TEAM = "t"


def limit(window: str, measure: str = "tokens") -> Limit:
    return Limit(scope="team", name=TEAM, measure=measure, window=window, amount=10**6)


LIMITS = [limit("minute"), limit("day"), limit("month"), limit("total"), limit("day", "money")]


def line(at: float, tokens: int, team: str = TEAM) -> bytes:
    entry = Entry(id=f"{at}-{tokens}", at=at, action="completion:run", outcome="ok", team=team)
    entry.admitted, entry.tokens_out, entry.cost = at, tokens, 2 * tokens
    return encode(entry)


class Desk:
    """Control's part, on files of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.now = NOW
        self.audit = folder / "audit"
        self.audit.mkdir()
        self.folder = folder / "quotas"
        self.database = Database(folder / "f.db")
        self.asked_by: list[int] = []
        self.spending = self.open()
        self.stopped = 0

    def open(self) -> Spending:
        return Spending(self.database, self.audit, self.folder, 4, self.clock)

    def clock(self) -> float:
        self.asked_by.append(threading.get_ident())
        return self.now

    def start(self, limits: list[Limit] = LIMITS) -> None:
        self.spending.start(limits, self.stop)

    def stop(self) -> None:
        self.stopped += 1

    def write(self, name: str, *lines: bytes) -> int:
        with (self.audit / name).open("ab") as file:
            file.write(b"".join(lines))
        return (self.audit / name).stat().st_size

    def spent(self) -> list[int]:
        return [self.spending.view(each)[0] for each in LIMITS]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.spending.close()
    made.database.close()


def test_windows_are_filled_from_tables_and_from_what_journals_have_beyond(desk: Desk) -> None:
    other_minute, other_day, other_month = NOW - 70, NOW - 86400 * 2, NOW - 86400 * 40
    desk.write("gateway-0-1.jsonl", line(NOW, 1), line(other_minute, 20), line(NOW, 9, "other"))
    take_in_journals(desk.database, desk.audit)
    desk.write("gateway-0-1.jsonl", line(other_day, 300), line(other_month, 4000), b'{"torn')
    desk.write("control-1.jsonl", line(NOW, 50_000))
    desk.start()
    assert desk.spent()[:3] == [50_001, 50_021, 50_321]
    assert desk.spent()[3:] == [54_321, 100_042]


def test_beside_a_gateway_that_runs_only_what_it_has_settled_counts(desk: Desk) -> None:
    desk.start([])
    gateway = Cells(desk.folder, 1, 4)
    assert take_slot(gateway, desk.audit, lambda _: [], 1)
    first = desk.write("gateway-0-2.jsonl", line(NOW, 1))
    gateway.view("journal:gateway-0-2.jsonl")[1][0] = first
    desk.write("gateway-0-2.jsonl", line(NOW, 10))  # durable, and settled a moment later
    desk.write("gateway-1-1.jsonl", line(NOW, 100))  # of one that is long gone
    take_in_journals(desk.database, desk.audit)
    desk.spending.use(LIMITS)
    assert desk.spent()[0] == 101
    ahead = desk.write("gateway-0-2.jsonl", line(NOW, 1000))
    gateway.view("journal:gateway-0-2.jsonl")[1][0] = ahead
    desk.spending.forget(LIMITS)
    desk.spending.use(LIMITS)
    assert desk.spent()[0] == 1111
    gateway.close()


async def test_the_clock_goes_back_to_windows_that_are_forgotten(desk: Desk) -> None:
    desk.start()
    desk.write("gateway-0-1.jsonl", *(line(NOW + 60 * minute, 5 + minute) for minute in range(9)))
    cells = Cells(desk.folder, 2, 4)
    counter = cells.counter(LIMITS[0])
    for minute in range(RING + 3):
        counter.find(number("minute", NOW + 60 * minute))
    assert counter.look(number("minute", NOW)) == LOST
    desk.now = NOW + 1
    await desk.spending.watch(told=False)
    assert desk.spending.view(LIMITS[0])[0] == 5
    with cells.lock():
        at = counter.look(number("minute", NOW + 60))
    assert counter.spent[at + 1] == 6  # the coming one too, before anybody needs it
    cells.close()


async def test_the_event_loop_does_not_count(desk: Desk) -> None:
    """It looks whether there is something to count; journals are read elsewhere."""
    desk.start()
    cells = Cells(desk.folder, 2, 4)
    for minute in range(RING + 3):
        cells.counter(LIMITS[0]).find(number("minute", NOW + 60 * minute))
    cells.close()
    desk.write("gateway-0-1.jsonl", line(NOW, 5))
    desk.now, desk.asked_by = NOW + 1, []
    await desk.spending.watch(told=False)
    looked, *counted = desk.asked_by
    assert looked == threading.get_ident()
    assert counted
    assert threading.get_ident() not in counted
    assert desk.spent()[0] == 5


async def test_a_window_of_the_future_that_was_used_once_is_not_opened_again(desk: Desk) -> None:
    desk.write("gateway-0-1.jsonl", line(NOW + 86400 * 400, 77))  # the clock was wrong
    desk.start()
    assert desk.spent()[:3] == [0, 0, 0]
    desk.now = NOW + 86400 * 400
    await desk.spending.watch(told=False)
    assert desk.spent()[:3] == [77, 77, 77]


def test_damaged_boards_are_noticed_and_gateways_stopped(desk: Desk) -> None:
    desk.write("gateway-0-1.jsonl", line(NOW, 7))
    desk.start()
    assert not desk.spending.is_damaged()
    for damage in (lambda path: path.unlink(), lambda path: path.write_bytes(b"x" * 100)):
        before = desk.stopped
        damage(desk.folder / "spent.board")
        assert desk.spending.is_damaged()
        desk.start()
        assert (desk.stopped, desk.spent()[0]) == (before + 1, 7)


def test_a_start_with_nothing_running_counts_everything_again(desk: Desk) -> None:
    desk.start()
    desk.spending.close()
    desk.write("gateway-3-1.jsonl", line(NOW, 70))
    desk.start()
    assert desk.spent()[0] == 70


async def test_a_start_beside_a_gateway_goes_on_with_its_numbers(desk: Desk) -> None:
    desk.start(LIMITS[1:])
    gateway = Cells(desk.folder, 1, 4)
    assert take_slot(gateway, desk.audit, lambda _: [], 1)
    with gateway.lock():
        counter = gateway.counter(LIMITS[1])
        counter.spent[counter.find(number("day", NOW)) + 1] = 5
    stopped = desk.stopped
    desk.start()
    assert (desk.stopped, desk.spent()[1]) == (stopped, 5)
    new = gateway.counter(LIMITS[0])
    assert new.look(1) == CLOSED  # the gateway may not know of it yet
    desk.now += 2
    await desk.spending.watch(told=False)
    assert new.look(1) == CLOSED
    desk.now += 2
    await desk.spending.watch(told=True)
    assert new.look(number("minute", NOW)) >= 0
    gateway.close()


def test_minutes_go_once_no_limit_can_come_back_to_them(desk: Desk) -> None:
    """Days stay for ever; who looks at the counters afterwards sees what was there."""
    old, kept = NOW - MINUTES_KEPT - 61, NOW - MINUTES_KEPT + 3600
    desk.write("gateway-0-1.jsonl", line(old, 1), line(kept, 20), line(NOW, 300))
    desk.start()
    before = desk.spent()
    assert desk.spending.purge() == 0  # the first time nobody knows whether the clock is right
    assert desk.spending.purge() == 1
    assert desk.spending.purge() == 0
    desk.spending.forget(LIMITS)
    desk.spending.use(LIMITS)
    assert desk.spent() == before == [300, 300, 321, 321, 600]
    for at, tokens in ((kept, 20), (old, 0)):
        desk.now = at
        desk.spending.forget(LIMITS[:1])
        desk.spending.use(LIMITS)
        assert desk.spent()[0] == tokens
    desk.now = old
    desk.spending.forget(LIMITS[1:2])
    desk.spending.use(LIMITS)
    assert desk.spent()[1] == 21


def test_a_clock_that_jumps_ahead_takes_nothing_with_it(desk: Desk) -> None:
    """A minute that the clock will come back to is still there when it does."""
    desk.write("gateway-0-1.jsonl", line(NOW, 7))
    desk.start()
    desk.spending.purge()
    desk.now = NOW + 400 * 86400
    assert desk.spending.purge() == 0
    desk.now = NOW
    desk.spending.forget(LIMITS)
    desk.spending.use(LIMITS)
    assert desk.spent()[0] == 7


def test_what_is_kept_is_counted_from_the_lesser_of_two_readings() -> None:
    assert oldest_kept(None, NOW) is None
    for last, now in ((NOW, NOW + 3600), (NOW, NOW + 1e9), (NOW + 1e9, NOW), (NOW + 3600, NOW)):
        assert oldest_kept(last, now) == NOW - MINUTES_KEPT
