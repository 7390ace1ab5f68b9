"""Shared cells: right after a kill at any line, when the clock jumps, when a window is gone."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from freehold.errors import OverQuota, Unavailable
from freehold.policy.budgets import Budgets, Reservation
from freehold.policy.cells import CLOSED, LOST, RING, Cells, Counter
from freehold.policy.quotas import Size
from freehold.policy.settle import take_slot
from freehold.record.entry import Entry, encode
from freehold.record.windows import number
from freehold.store.snapshot import Limit
from tests.unit.policy.crash import ANN, NOW, ROUTE, budgets

ROOT = Path(__file__).parents[3]


class Gateway:
    """The budgets of one gateway with a clock and a journal of the test's own."""

    def __init__(self, folder: Path, slot: int, *limits: Limit) -> None:
        self.now = NOW
        self.cells = Cells(folder / "quotas", slot, 4)
        self.cells.declare_ready(1)
        self.audit = folder / "audit"
        self.audit.mkdir(exist_ok=True)
        self.budgets = Budgets(self.cells, self.audit, lambda: self.now, 4096)
        self.limits = {"team:t": limits}
        self.budgets.plans.use(self.limits)
        assert take_slot(self.cells, self.audit, self.budgets.plans.charges, time.time_ns())
        self.journal = self.audit / f"gateway-{slot - 1}-{time.time_ns()}.jsonl"
        self.journal.touch()
        self.requests = 0

    def counter(self, limit: Limit) -> Counter:
        return self.cells.counter(limit)

    def reserve(self, tokens: int, stack: ExitStack) -> Reservation:
        self.requests += 1
        entry = Entry(id=f"{self.journal.stem}-{self.requests}", at=self.now, action="x")
        entry.principal, entry.key = ANN.name, ANN.key
        size = Size(prompt=0, answer=tokens)
        made = self.budgets.reserve(ANN, size, entry, [ROUTE], self.limits)
        spared = (None, asyncio.CancelledError)
        stack.push(lambda kind, *_: self.budgets.close(made, failed=kind not in spared))
        return made

    def serve(self, tokens: int, used: int | None = None) -> Entry:
        with ExitStack() as stack:
            made = self.reserve(tokens, stack)
            self.answered(made.entry, tokens if used is None else used)
        self.settle(made.entry)
        return made.entry

    def answered(self, entry: Entry, used: int) -> None:
        entry.attempts, entry.deployment, entry.first_token_ms = 1, "d", 1.0
        entry.tokens_out = used

    def record(self, entry: Entry) -> int:
        with self.journal.open("ab") as file:
            file.write(encode(entry))
        return self.journal.stat().st_size

    def settle(self, entry: Entry) -> None:
        self.budgets.settle([(entry, self.journal.name, self.record(entry))])

    def die(self) -> None:
        self.cells.close()


def limit(amount: int, window: str = "minute", measure: str = "tokens") -> Limit:
    return Limit(scope="team", name="t", measure=measure, window=window, amount=amount)


@pytest.fixture
def gateways(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    made: list[Gateway] = []

    def make(slot: int, *limits: Limit) -> Gateway:
        made.append(Gateway(tmp_path, slot, *limits))
        for each in limits:
            counter = made[-1].counter(each)
            if each.measure != "concurrency" and counter.look(1) == CLOSED:
                counter.begin(number(each.window, NOW), 0)
        return made[-1]

    yield make
    for each in made:
        if each.cells.slot:
            each.cells.close()
            each.cells.slot = 0


def test_a_kill_at_any_line_leaves_the_numbers_right(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.unit.policy.crash", str(tmp_path), "17"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr


def test_gateways_at_once_lose_no_update_and_let_in_none_too_many(tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    cells, made = budgets(tmp_path, 0)
    plan = made.plans.of((("principal", "ann"), ("team", "t")))
    counted = [(limit, counter) for limit, counter in plan if limit.measure != "concurrency"]
    for each, counter in counted:
        counter.begin(number(each.window, NOW), 10**9 - 2000 if each.measure == "requests" else 0)
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.unit.policy.hammer", str(tmp_path), str(slot), "600"],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )
        for slot in (1, 2, 3, 4)
    ]  # fmt: skip
    served = sum(int(child.communicate()[0]) for child in children)
    found = {each.measure: counter.spent[1] for each, counter in counted}
    assert served == 2000
    assert found == {"tokens": served * 10, "money": served * 3, "requests": 10**9}
    cells.close()


def test_what_is_reserved_counts_until_it_is_settled(gateways: Callable[..., Gateway]) -> None:
    one, two = gateways(1, limit(100)), gateways(2, limit(100))
    with ExitStack() as stack:
        made = one.reserve(70, stack)
        with pytest.raises(OverQuota) as caught:
            two.serve(31)
        assert (caught.value.code, caught.value.retry_after) == ("quota.exceeded", 1.0)
        two.serve(30)
        one.answered(made.entry, 20)
    one.settle(made.entry)
    assert two.serve(50).tokens_out == 50
    with pytest.raises(OverQuota):
        one.serve(1)


def test_what_a_dead_gateway_reserved_is_free_and_what_it_recorded_counts(
    gateways: Callable[..., Gateway],
) -> None:
    one, two = gateways(1, limit(100)), gateways(2, limit(100))
    with ExitStack() as stack:
        recorded = one.reserve(40, stack)
        one.reserve(60, stack)
        one.answered(recorded.entry, 25)
    one.record(recorded.entry)
    with pytest.raises(OverQuota):
        two.serve(41)
    one.die()
    one.cells.slot = 0
    with pytest.raises(OverQuota):
        two.serve(76)
    assert two.serve(75).tokens_out == 75


def test_more_than_reserved_is_counted_in_full(gateways: Callable[..., Gateway]) -> None:
    one = gateways(1, limit(100))
    one.serve(60, used=130)
    with pytest.raises(OverQuota) as caught:
        one.serve(1)
    assert caught.value.details["remaining"] == 0


def test_what_failed_before_a_token_came_is_not_charged(gateways: Callable[..., Gateway]) -> None:
    one = gateways(1, limit(100), limit(5, measure="requests"))
    stack = ExitStack()
    made = one.reserve(100, stack)
    made.entry.attempts, made.entry.deployment, made.entry.tokens_in = 1, "d", 9
    lost = Unavailable("unavailable.engine_lost", "gone")
    assert not stack.__exit__(type(lost), lost, None)
    assert made.entry.admitted is None
    one.settle(made.entry)
    assert one.counter(limit(100)).spent[1] == 0
    one.serve(100)


def test_who_hangs_up_pays_for_what_the_engine_did(gateways: Callable[..., Gateway]) -> None:
    one = gateways(1, limit(100))
    for attempts, charged in ((1, 12), (0, 0)):
        stack = ExitStack()
        made = one.reserve(40, stack)
        made.entry.attempts, made.entry.deployment, made.entry.tokens_out = attempts, "d", 12
        gone = asyncio.CancelledError()
        assert not stack.__exit__(type(gone), gone, None)
        before = one.counter(limit(100)).spent[1]
        one.settle(made.entry)
        assert one.counter(limit(100)).spent[1] - before == charged


def test_another_deployment_answers_only_within_its_own_limits(
    gateways: Callable[..., Gateway],
) -> None:
    one = gateways(1, limit(100))
    other = Limit(scope="deployment", name="e", measure="tokens", window="total", amount=50)
    one.counter(other).begin(1, 0)
    one.limits = {**one.limits, "deployment:e": (other,)}
    route = msgspec.structs.replace(ROUTE, deployment="e")
    with ExitStack() as stack:
        made = one.reserve(51, stack)
        with pytest.raises(OverQuota) as caught:
            one.budgets.move(made.entry, route)
        assert "deployment:e" in caught.value.message
        assert one.counter(limit(100)).reserved(0) == 51
        small = one.reserve(49, stack)
        one.budgets.move(small.entry, route)
        assert one.counter(other).reserved(0) == 49
        assert one.counter(limit(100)).reserved(0) == 100
        for each, name in ((made, "d"), (small, "e")):
            one.answered(each.entry, 5)
            each.entry.deployment = name
    one.settle(made.entry)
    one.settle(small.entry)
    assert one.counter(other).spent[1] == 5
    assert one.counter(limit(100)).spent[1] == 10
    assert one.counter(other).reserved(0) == one.counter(limit(100)).reserved(0) == 0


def test_concurrency_is_given_back(gateways: Callable[..., Gateway]) -> None:
    cap = limit(2, "total", "concurrency")
    one, two = gateways(1, cap), gateways(2, cap)
    with ExitStack() as stack:
        first = one.reserve(1, stack)
        two.reserve(1, stack)
        with pytest.raises(OverQuota) as caught:
            one.serve(1)
        assert caught.value.code == "quota.concurrency"
        one.answered(first.entry, 1)
    one.settle(first.entry)
    one.serve(1)


def test_a_clock_that_jumps_opens_no_window_twice(gateways: Callable[..., Gateway]) -> None:
    one = gateways(1, limit(100))
    for jump, fits in ((0, 100), (60, 100), (0, 0), (60, 0), (120, 100), (0, 0), (120, 0), (60, 0)):
        one.now = NOW + jump
        if fits:
            one.serve(fits)
        with pytest.raises(OverQuota):
            one.serve(1)


def test_a_window_long_gone_is_refused_until_it_is_counted_again(
    gateways: Callable[..., Gateway],
) -> None:
    one = gateways(1, limit(100))
    one.serve(100)
    for minute in range(1, RING + 1):
        one.now = NOW + minute * 60
        one.serve(100)
    one.now = NOW
    with pytest.raises(Unavailable, match="clock went back"):
        one.serve(1)
    with one.cells.lock():
        assert one.counter(limit(100)).look(number("minute", NOW)) == LOST
        one.counter(limit(100)).begin(number("minute", NOW), 100)
    with pytest.raises(OverQuota):
        one.serve(1)


def test_a_reservation_of_a_window_that_ended_takes_nothing_of_the_next(
    gateways: Callable[..., Gateway],
) -> None:
    one = gateways(1, limit(100))
    with ExitStack() as stack:
        made = one.reserve(90, stack)
        one.now = NOW + 60
        one.serve(100)
        for minute in range(2, RING + 2):  # the first minute's place goes to another
            one.now = NOW + minute * 60
            one.serve(100)
        one.answered(made.entry, 80)
    one.settle(made.entry)
    one.now += 60
    one.serve(100)


def test_numbers_that_are_not_counted_yet_let_nobody_in(gateways: Callable[..., Gateway]) -> None:
    one = gateways(1, limit(100))
    one.cells.declare_ready(0)
    with pytest.raises(Unavailable, match="being counted"):
        one.serve(1)


def test_what_could_not_be_recorded_counts_all_the_same(gateways: Callable[..., Gateway]) -> None:
    one = gateways(1, limit(100))
    with ExitStack() as stack:
        made = one.reserve(90, stack)
        one.answered(made.entry, 70)
    one.budgets.settle([(made.entry, "", 0)])
    with pytest.raises(OverQuota):
        one.serve(31)
    one.serve(30)


def test_a_limit_lowered_below_what_is_spent_refuses(gateways: Callable[..., Gateway]) -> None:
    one = gateways(1, limit(100))
    one.serve(50)
    one.limits = {"team:t": (limit(10),)}
    with pytest.raises(OverQuota):
        one.serve(1)
    one.limits = {"team:t": (limit(60),)}
    one.serve(10)


def test_a_slot_belongs_to_one_process_at_a_time(gateways: Callable[..., Gateway]) -> None:
    one = gateways(1, limit(100))
    later = Cells(one.cells.folder, 1, 4)
    assert not take_slot(later, one.audit, one.budgets.plans.charges, 1)
    one.die()
    one.cells.slot = 0
    assert take_slot(later, later.folder.parent / "audit", lambda _: [], 2)
    later.close()
