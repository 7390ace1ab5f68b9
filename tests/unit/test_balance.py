"""Which replica answers: the decision as a table, and what holds of it always."""

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.routing.balance import SAVED, WRITTEN, Standing, expected_answer, rank, work
from freehold.routing.prefix import BOUNDS, LONGEST, chain, common
from freehold.store.snapshot import Target


def target(name: str, weight: float = 1.0) -> Target:
    return Target(
        replica=name, url=f"http://{name}", key=None, model="m", streams_only=True, weight=weight
    )


def closed(_target: Target) -> bool:
    return False


@pytest.mark.parametrize(
    ("why", "standings", "first"),
    [
        ("an idle one before a busy one", [("a", 10, 0, 0, 0), ("b", 0, 0, 0, 0)], "b"),
        ("less work before more", [("a", 300, 0, 0, 0), ("b", 200, 0, 0, 0)], "b"),
        ("equal ones take turns", [("a", 5, 0, 0, 9.0), ("b", 5, 0, 0, 3.0)], "b"),
        ("where it was read, when all are idle", [("a", 0, 0, 0, 0), ("b", 0, 400, 0, 9)], "b"),
        ("also at a wait of nearly three times", [("a", 0, 0, 0, 0), ("b", 1199, 400, 0, 0)], "b"),
        ("not at a longer one", [("a", 0, 0, 0, 0), ("b", 1201, 400, 0, 0)], "a"),
        ("where it is being read", [("a", 0, 0, 0, 0), ("b", 399, 0, 400, 0)], "b"),
        ("but not for longer than that", [("a", 0, 0, 0, 0), ("b", 401, 0, 400, 0)], "a"),
        ("a longer beginning before a shorter", [("a", 0, 300, 0, 0), ("b", 0, 400, 0, 9)], "b"),
        ("read before being read", [("a", 0, 0, 400, 0), ("b", 0, 400, 0, 9)], "b"),
        ("no more than all can be saved", [("a", 1501, 9999, 9999, 0), ("b", 0, 0, 0, 0)], "b"),
        (
            "twice as fast takes twice the work",
            [("a", 400, 500, 0, 0), ("b2", 799, 500, 0, 0)],
            "b2",
        ),
        ("but not more", [("a", 400, 500, 0, 0), ("b2", 801, 500, 0, 0)], "a"),
    ],
)
def test_the_table(
    why: str, standings: list[tuple[str, float, float, float, float]], first: str
) -> None:
    found = [
        Standing(target(name, 2.0 if name.endswith("2") else 1.0), *numbers)
        for name, *numbers in standings
    ]
    assert rank(500, found, closed)[0].replica == first, why
    assert rank(500, found[::-1], closed)[0].replica == first, why


def test_work_and_expectation() -> None:
    assert work(100, 40, 10) == 60 + WRITTEN * 10
    assert work(0, 0, 0) == 1
    assert expected_answer(None, 16, 1) == 16
    assert expected_answer(50, 400, 2) == 100
    assert expected_answer(50, 0, 1) == 50


STANDINGS = st.lists(
    st.builds(
        lambda number, load, known, reading, used, weight: Standing(
            target(f"r{number}", weight), load, known, reading, used
        ),
        st.integers(0, 10**6),
        st.integers(0, 10**6),
        st.integers(0, 10**5),
        st.integers(0, 10**5),
        st.floats(0, 1e9),
        st.floats(0.01, 100),
    ),
    max_size=12,
    unique_by=lambda standing: standing.target.replica,
)


@given(st.integers(0, 10**6), STANDINGS, st.sets(st.integers(0, 11)))
def test_all_that_may_be_asked_are_there_once_and_no_other(
    prompt: int, standings: list[Standing], avoided: set[int]
) -> None:
    opened = {s.target.replica for n, s in enumerate(standings) if n in avoided}
    ranked = rank(prompt, standings, lambda target: target.replica in opened)
    assert sorted(t.replica for t in ranked) == sorted(
        s.target.replica for s in standings if s.target.replica not in opened
    )


@given(st.integers(1, 8), st.integers(1, 6), st.integers(0, 2000), st.integers(1, 500))
def test_equal_replicas_share_evenly(count: int, rounds: int, prompt: int, answer: int) -> None:
    targets = [target(f"r{number}") for number in range(count)]
    load, used, got = Counter[str](), Counter[str](), Counter[str]()
    for turn in range(count * rounds):
        standings = [Standing(t, load[t.replica], used=used[t.replica]) for t in targets]
        name = rank(prompt, standings, closed)[0].replica
        load[name] += work(prompt, 0, answer)
        used[name] = turn + 1
        got[name] += 1
    assert set(got.values()) == {rounds}


@given(st.integers(1, 3000), st.integers(20, 300), st.integers(2, 6))
def test_affinity_sticks_under_light_load_and_yields_under_heavy(
    prompt: int, answer: int, count: int
) -> None:
    targets = [target(f"r{number}") for number in range(count)]
    load, got = Counter[str](), []
    for _ in range(400):
        standings = [
            Standing(t, load[t.replica], prompt if t.replica == "r0" else 0) for t in targets
        ]
        name = rank(prompt, standings, closed)[0].replica
        load[name] += work(prompt, prompt if name == "r0" else 0, answer)
        got.append(name)
    assert got[0] == "r0"
    assert set(got) == {t.replica for t in targets}, "nobody starves while r0 drowns"
    stuck = got.index(next(name for name in got if name != "r0"))
    assert (stuck - 1) * WRITTEN * answer <= SAVED * prompt < stuck * WRITTEN * answer


def test_a_chain_is_the_same_as_far_as_the_bytes_are() -> None:
    one, other = b"s" * 1000 + b"a" * 500, b"s" * 1000 + b"b" * 500
    same = [a for a, b in zip(chain(0, one), chain(0, other), strict=True) if a == b]
    assert len(same) == 1000 // 128
    assert chain(0, one)[: len(same)] == tuple(same)
    assert set(chain(0, one)).isdisjoint(chain(1, one))
    assert len(chain(0, b"x" * LONGEST * 3)) == len(BOUNDS) - 1 < 150
    assert chain(0, b"x" * 127) == ()


def test_chains_are_the_same_in_every_process() -> None:
    program = "from freehold.routing.prefix import chain; print(chain(7, b'abc' * 100))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert ran.stdout.decode().strip() == str(chain(7, b"abc" * 100))


@given(st.binary(max_size=3000), st.binary(max_size=3000), st.binary(max_size=3000))
def test_known_is_never_more_than_the_common_beginning(a: bytes, b: bytes, c: bytes) -> None:
    known = common(chain(0, a + c), set(chain(0, a + b)).__contains__)
    assert known % 128 == 0
    assert (a + b)[:known] == (a + c)[:known]
    assert known > len(a) - 128
    assert common(chain(0, a), lambda _: False) == 0
