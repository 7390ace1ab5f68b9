"""Who is let in, as a table; what the most is that a request can use."""

import math

import pytest

from freehold.errors import Exhausted
from freehold.policy.quotas import (
    Size,
    Standing,
    amounts,
    decide,
    describe,
    is_elsewhere_free,
    mildest,
    most,
)
from freehold.record.cost import cost
from freehold.record.windows import ends, newest, number, period
from freehold.store.snapshot import Limit, Route

NOON = 1_769_860_800.0  # 2026-01-31T12:00:00Z


def limit(measure: str = "tokens", window: str = "minute", amount: int = 100) -> Limit:
    return Limit(scope="team", name="t", measure=measure, window=window, amount=amount)


def route(**fields: object) -> Route:
    base = {"engine": "e", "place": "local", "task": "chat", "state": "ready"}
    return Route(deployment="d", **{**base, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("standing", "code", "wait"),
    [
        (Standing(limit(), 0, 0, 100), None, None),
        (Standing(limit(), 60, 20, 20), None, None),
        (Standing(limit(amount=0), 0, 0, 0), None, None),
        (Standing(limit(), 60, 20, 21), "quota.exceeded", 1.0),  # running ones may give some back
        (Standing(limit(), 80, 0, 21), "quota.exceeded", 60.0),
        (Standing(limit(window="day"), 80, 0, 21), "quota.exceeded", 12 * 3600.0),
        (Standing(limit(window="month"), 80, 0, 21), "quota.exceeded", 12 * 3600.0),
        (Standing(limit(window="total"), 80, 0, 21), "quota.exceeded", None),
        (Standing(limit(), 150, 0, 1), "quota.exceeded", 60.0),  # lowered below what is spent
        (Standing(limit(), 0, 0, 101), "quota.too_large", None),
        (Standing(limit("concurrency", "total", 2), 0, 2, 1), "quota.concurrency", 1.0),
        (Standing(limit("money", "total", 100), 90, 0, 11), "quota.exhausted", None),
        (Standing(limit("money", "day", 100), 90, 0, 11), "quota.exceeded", 12 * 3600.0),
        (Standing(limit("money", "total", 100), 60, 30, 11), "quota.exceeded", 1.0),
    ],
)
def test_one_limit(standing: Standing, code: str | None, wait: float | None) -> None:
    refusal = decide([standing], NOON)
    if code is None:
        assert refusal is None
        return
    assert refusal is not None
    assert (refusal.code, refusal.retry_after) == (code, wait)
    assert isinstance(refusal, Exhausted) == (code == "quota.exhausted")
    assert refusal.details["wanted"] == standing.want
    if code != "quota.concurrency":
        assert describe(standing.limit) in refusal.message


def test_of_many_limits_the_longest_refusal_counts() -> None:
    minute = Standing(limit(), 100, 0, 1)
    day = Standing(limit(window="day"), 100, 0, 1)
    fine = Standing(limit(window="month"), 0, 0, 1)
    never = Standing(limit("money", "total", 0), 0, 0, 1)
    assert decide([fine], NOON) is None
    found = decide([minute, fine, day], NOON)
    assert found is not None
    assert found.retry_after == 12 * 3600.0
    last = decide([minute, never, day], NOON)
    assert last is not None
    assert last.code == "quota.exhausted"


@pytest.mark.parametrize(
    ("window", "spent", "reserved", "told"),
    [
        ("minute", 100, 0, "0 requests left, up to 1 requests needed: retry in 60 s"),
        ("day", 100, 0, "up to 1 requests needed: retry from 2026-02-01 00:00 UTC"),
        ("total", 50, 50, "up to 1 requests needed: retry in 1 s"),  # what runs may give it back
        ("total", 100, 0, "up to 1 requests needed"),  # a hard cap: no time will help
    ],
)
def test_a_refusal_says_when_to_try_again(
    window: str, spent: int, reserved: int, told: str
) -> None:
    refused = decide([Standing(limit("requests", window), spent, reserved, 1)], NOON)
    assert refused is not None
    assert refused.message.endswith(told)
    assert (refused.retry_after is None) == ("retry" not in refused.message)


def test_only_where_nothing_but_deployments_refuse_may_another_answer() -> None:
    def of(scope: str, window: str) -> Standing:
        return Standing(
            Limit(scope=scope, name="n", measure="tokens", window=window, amount=1), 1, 0, 1
        )

    theirs = [decide([of("deployment", window)], NOON) for window in ("day", "minute", "total")]
    refusals = [each for each in theirs if each is not None]
    assert [is_elsewhere_free(each) for each in refusals] == [True] * 3
    for scope in ("key", "principal", "team"):
        own = decide([of("deployment", "total"), of(scope, "minute")], NOON)
        assert own is not None
        assert not is_elsewhere_free(own)
        assert own.retry_after == 60.0
    assert mildest(refusals).retry_after == 60.0
    assert mildest(refusals[2:]).retry_after is None


@pytest.mark.parametrize(
    ("size", "fields", "expected"),
    [
        (Size(prompt=40, answer=10), {}, (40, 10)),
        (Size(prompt=40, answer=10, choices=3), {}, (40, 30)),
        (Size(prompt=40, answer=10, prompts=2, choices=3), {}, (40, 60)),
        (Size(prompt=40, answer=0), {}, (40, 77)),
        (Size(prompt=40, answer=0), {"context": 30}, (30, 30)),
        (Size(prompt=40, answer=50), {"context": 30}, (30, 30)),
        (Size(prompt=40, answer=0, writes=False), {"context": 30}, (40, 0)),
    ],
)
def test_the_most_a_request_can_use(
    size: Size, fields: dict[str, object], expected: tuple[int, int]
) -> None:
    _, tokens_in, tokens_out, tokens, money, one = most(size, route(**fields), 77)
    assert (tokens_in, tokens_out) == expected
    assert (tokens, money, one) == (sum(expected), 0, 1)


def test_money_is_whole_micro_units_rounded_up_and_never_more_than_reserved() -> None:
    assert cost(150_000, 600_000, 1_000_000, 1_000_000) == 750_000
    assert cost(150_000, 600_000, 1, 0) == 1
    assert cost(0, 0, 10**9, 10**9) == 0
    for tokens in range(50):
        assert cost(7, 11, tokens, tokens) <= cost(7, 11, 50, 50)
    priced = route(price_in=2_000_000, price_out=3_000_000)
    assert most(Size(prompt=10, answer=5), priced, 1)[4] == 35
    assert amounts(1, 2, 3) == (1, 1, 2, 3, 3, 1)


@pytest.mark.parametrize(
    ("window", "at", "end", "name"),
    [
        ("minute", NOON + 59.9, NOON + 60, "2026-01-31T12:00"),
        ("day", NOON, NOON + 43200, "2026-01-31"),
        ("month", NOON, NOON + 43200, "2026-01"),
        ("month", NOON + 86400 * 320, 1798761600.0, "2026-12"),  # ends with the year
        ("total", NOON, math.inf, ""),
    ],
)
def test_windows_are_those_of_the_calendar(window: str, at: float, end: float, name: str) -> None:
    assert ends(window, at) == end
    assert period(window, number(window, at)) == name
    if window != "total":
        assert number(window, end) == number(window, at) + 1
        assert number(window, end - 0.001) == number(window, at)


def test_windows_far_away_are_still_windows() -> None:
    for window in ("minute", "day", "month", "total"):
        assert number(window, 0.0) == 1
        assert number(window, -5.0) == 1
    assert newest("month", "2026-01-31") == number("month", NOON)
    assert newest("minute", "2026-01-31T12:00") == number("minute", NOON)
    assert newest("day", "") == 0
