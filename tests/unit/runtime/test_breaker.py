"""The circuit breaker as a table, and as a word that processes share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.runtime import breaker
from freehold.runtime.breaker import (
    CLOSED,
    FAILURE,
    FIRST_REST_MS,
    FULL,
    LONGEST_REST_MS,
    PROBE_MS,
    STATES,
    Breaker,
)
from freehold.runtime.circuits import Circuits, _unpack, _write, open_board

NOW = 1_800_000_000_000
OPEN = Breaker("open", FULL, 1, NOW + FIRST_REST_MS)
HALF = Breaker("half-open", FULL, 1, NOW + PROBE_MS)
BUSY = Breaker("busy", 4, 0, NOW + 2000)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (CLOSED, Breaker("closed", FAILURE)),
        (Breaker("closed", FULL - FAILURE), OPEN),
        (Breaker("closed", FULL - 1), OPEN),
        (OPEN, OPEN),
        (HALF, Breaker("open", FULL, 2, NOW + 2 * FIRST_REST_MS)),
        (Breaker("half-open", FULL, 7, 0), Breaker("open", FULL, 7, NOW + LONGEST_REST_MS)),
        (BUSY, Breaker("busy", 8, 0, BUSY.until)),
    ],
)
def test_after_a_failure(before: Breaker, after: Breaker) -> None:
    assert breaker.failed(before, NOW) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (CLOSED, CLOSED),
        (Breaker("closed", 1), CLOSED),
        (Breaker("closed", 9), Breaker("closed", 8)),
        (HALF, CLOSED),
        (OPEN, CLOSED),
        (BUSY, Breaker("busy", 3, 0, BUSY.until)),
    ],
)
def test_after_an_answer(before: Breaker, after: Breaker) -> None:
    assert breaker.answered(before) == after


@pytest.mark.parametrize(
    ("before", "now", "admitted", "then"),
    [
        (CLOSED, NOW, True, CLOSED),
        (Breaker("closed", 16), NOW, True, Breaker("closed", 16)),
        (OPEN, NOW, False, None),
        (OPEN, OPEN.until, True, Breaker("half-open", FULL, 1, OPEN.until + PROBE_MS)),
        (HALF, NOW + 1, False, None),
        (HALF, HALF.until, True, Breaker("half-open", FULL, 1, HALF.until + PROBE_MS)),
        (BUSY, NOW, False, None),
        (BUSY, BUSY.until, True, Breaker("closed", 4)),
        (OPEN, NOW - 90_000, True, Breaker("half-open", FULL, 1, NOW - 90_000 + PROBE_MS)),
    ],
    ids=str,
)
def test_who_is_admitted(before: Breaker, now: int, admitted: bool, then: Breaker | None) -> None:
    assert breaker.admits(before, now) is admitted
    if then is not None:
        assert breaker.asked(before, now) == then


def test_too_much_to_do_is_no_failure() -> None:
    assert breaker.busy(CLOSED, NOW, 2000) == Breaker("busy", 0, 0, NOW + 2000)
    assert breaker.busy(CLOSED, NOW, 10**9).until == NOW + 60_000
    assert breaker.busy(BUSY, NOW, 500) == BUSY
    assert breaker.busy(HALF, NOW, 500).openings == HALF.openings


def test_a_probe_without_a_verdict_leaves_room_for_the_next() -> None:
    left = breaker.dropped(HALF, NOW)
    assert breaker.admits(left, NOW)
    assert breaker.dropped(OPEN, NOW) == OPEN


def test_a_share_of_failures_opens_as_well_as_a_row_of_them() -> None:
    def after(pattern: str) -> Breaker:
        found = CLOSED
        for each in pattern:
            found = breaker.failed(found, NOW) if each == "x" else breaker.answered(found)
        return found

    assert after("xxxx").state == "closed"
    assert after("xxxxx").state == "open"
    assert after("xx.xx.xx").state == "open"
    assert after(".....x" * 100).state == "closed"


@given(
    st.sampled_from(STATES), st.integers(0, FULL), st.integers(0, 7), st.integers(0, 2**42 - 1),
    st.integers(0, 1023),
)  # fmt: skip
def test_a_word_holds_all_of_it(
    state: breaker.State, score: int, openings: int, until: int, mark: int
) -> None:
    found = Breaker(state, score, openings, until)
    word = _write(found, mark)
    assert 0 <= word < 2**63
    assert found == CLOSED or _unpack(word) == found


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Circuits, Circuits, Clock]]:
    """Two processes' views of one home."""
    boards = [open_board(tmp_path), open_board(tmp_path)]
    clock = Clock()
    yield Circuits(boards[0], clock), Circuits(boards[1], clock), clock
    for board in boards:
        board.close()


def test_what_one_process_finds_out_the_other_knows(
    pair: tuple[Circuits, Circuits, Clock],
) -> None:
    one, other, clock = pair
    for _ in range(5):
        assert other.admits("r", "u")
        one.failed("r", "u")
    assert other.state("r", "u") == "open"
    assert not other.admits("r", "u")
    assert other.admits("r", "the same replica, started again")
    assert other.admits("s", "u")
    clock.now += 1.5
    assert other.admits("r", "u")
    assert not one.admits("r", "u"), "one probe at a time"
    other.dropped("r", "u")
    assert one.admits("r", "u")
    one.answered("r", "u")
    assert other.state("r", "u") == "closed"


def test_busy_passes_by_itself(pair: tuple[Circuits, Circuits, Clock]) -> None:
    one, other, clock = pair
    one.busy("r", "u", 2.0)
    assert (other.admits("r", "u"), other.state("r", "u")) == (False, "busy")
    clock.now += 2.1
    assert (other.state("r", "u"), other.admits("r", "u")) == ("closed", True)


def test_a_clock_that_jumps_neither_opens_a_circuit_for_ever_nor_forgets_it(
    tmp_path: Path,
) -> None:
    """Whatever it said when the circuit opened: within a minute and a probe somebody asks."""
    moved = [NOW / 1000]
    board = open_board(tmp_path)
    circuits = Circuits(board, lambda: moved[0])
    for jump in (86_400.0, -3600.0, -86_400.0 * 31, 40.0, -40.0):
        url = f"http://{jump}"
        for _ in range(FULL // FAILURE):
            circuits.failed("r", url)
        assert not circuits.admits("r", url)
        moved[0] += jump
        if jump == -40.0:  # too little to tell from a clock that was right: it waits that much more
            assert not circuits.admits("r", url)
            moved[0] += 41.1
        assert circuits.admits("r", url)
        assert not circuits.admits("r", url)  # one probe at a time, by the new clock
        moved[0] += PROBE_MS / 1000 + 1
        assert circuits.admits("r", url)
    board.close()
