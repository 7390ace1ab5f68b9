"""Intervals that hold."""

import random

from freehold.models.intervals import mean_interval, paired, wilson


def test_wilson_stays_within_nought_and_one_and_is_never_certain() -> None:
    assert wilson(0, 10).high > 0.2
    assert wilson(10, 10).low < 0.8
    assert wilson(0, 10).low >= 0
    assert wilson(10, 10).high <= 1
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)


def test_wilson_covers_the_truth_about_as_often_as_promised() -> None:
    draw, held = random.Random(1), 0
    for _ in range(2000):
        found = wilson(sum(draw.random() < 0.8 for _ in range(40)), 40)
        held += found.low <= 0.8 <= found.high
    assert 0.9 < held / 2000 < 0.98


def test_a_change_on_the_same_cases_is_seen_sooner_than_on_others() -> None:
    before = [True] * 40 + [False] * 20
    after = [True] * 40 + [True] * 8 + [False] * 12
    found = paired(before, after)
    assert found.mean > 0.13
    assert found.low > 0
    apart = wilson(sum(before), 60), wilson(sum(after), 60)
    assert apart[0].high > apart[1].low


def test_nothing_that_changed_is_no_change() -> None:
    found = paired([True, False] * 50, [True, False] * 50)
    assert found.mean == 0
    assert found.low <= 0 <= found.high
    assert found.high - found.low < 0.1


def test_paired_covers_the_truth_about_as_often_as_promised() -> None:
    draw, held = random.Random(2), 0
    for _ in range(1000):
        before = [draw.random() < 0.7 for _ in range(60)]
        after = [b if draw.random() < 0.8 else draw.random() < 0.5 for b in before]
        truth = 0.8 * 0.7 + 0.2 * 0.5 - 0.7
        found = paired(before, after)
        held += found.low <= truth <= found.high
    assert 0.92 < held / 1000 <= 1


def test_the_mean_is_over_values_and_the_interval_over_groups() -> None:
    found = mean_interval([[1.0, 1.0], [3.0]])
    assert abs(found.mean - 5 / 3) < 1e-12
    assert found.low <= found.mean <= found.high
    alike = mean_interval([[1.0, 2.0, 3.0]] * 10)
    assert alike.low == alike.high == 2.0
    assert mean_interval([]).mean == 0
