"""Test sets, checks and verdicts."""

import pytest

from freehold.errors import Invalid
from freehold.models.compress.weigh import built_in_cases
from freehold.models.trial import (
    MOST_DIFFERENCES,
    SHOWN,
    Case,
    Check,
    differences,
    outcome,
    outcomes,
    passes,
    read_cases,
)

GOOD = b'{"prompt": "2+2?", "check": {"equals": "4"}}\n\n{"prompt": "sky?", "answer": "blue"}\n'


def test_a_test_set_is_read() -> None:
    first, second = read_cases(GOOD, "mine")
    assert first.check == Check(equals="4")
    assert second.check == Check(contains="blue")


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (b"", "no case"),
        (b"\n \n", "no case"),
        (b"nonsense\n", "line 1"),
        (b"\xff\xfe\n", "line 1"),
        (GOOD + b'{"prompt": "x"}', "line 4"),
        (b'{"prompt": "x", "check": {}}', "exactly one"),
        (b'{"prompt": "x", "check": {"equals": "1", "contains": "2"}}', "exactly one"),
        (b'{"prompt": "x", "check": {"equals": "1"}, "answer": "1"}', "either"),
        (b'{"prompt": "x", "check": {"regex": "("}}', "regex is wrong"),
        (b'{"prompt": "x", "check": {"equal": "1"}}', "equal"),
        (b'{"prompt": "x", "chekc": {"equals": "1"}}', "chekc"),
        (b'{"prompt": "", "answer": "1"}', "line 1"),
        (b'{"prompt": "x", "answer": "1", "tokens": 0}', "line 1"),
        (b'{"prompt": "x", "check": {"one_of": []}}', "line 1"),
        (b"x" * (5 << 20), "4 MiB"),
    ],
)
def test_a_wrong_test_set_is_refused_with_its_place(data: bytes, where: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_cases(data, "mine")
    assert where in caught.value.message
    assert "JSON lines" in caught.value.message


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (Check(equals="Paris"), " paris. ", "Paris, France"),
        (Check(contains="blue"), "It is Blue!", "It is green"),
        (Check(regex=r"\b15\b"), "The sum is 15", "The sum is 150"),
        (Check(json={"a": 1}), 'Here: {"a": 1, "b": 2}', '{"a": 2}'),
        (Check(json={"a": 1}), '{"a": 1}', "no JSON at all {"),
        (Check(one_of=("yes", "no")), "Yes, not no", "No: yes would be wrong"),
        (Check(one_of=("art", "music")), "art", "party music"),
        (Check(code="assert f(2) == 4"), "```python\ndef f(x):\n    return x * x\n```", "f = 1"),
    ],
)
def test_a_check_knows_right_from_wrong(check: Check, right: str, wrong: str) -> None:
    assert passes(check, right)
    assert not passes(check, wrong)


def test_verdicts() -> None:
    yes, no = [True] * 60, [False] * 60
    assert outcome("t", no, yes).verdict == "better"
    assert outcome("t", yes, no).verdict == "worse"
    assert outcome("t", yes[:3], no[:1] + yes[:2]).verdict == "undecided"
    assert outcome("t", [*yes * 10, *no * 10], [*yes * 10, *no * 10]).verdict == "same"


def test_each_task_is_judged_by_its_own_cases() -> None:
    cases = read_cases(
        b'{"prompt": "a", "answer": "1", "task": "one"}\n'
        b'{"prompt": "b", "answer": "1", "task": "two"}\n'
        b'{"prompt": "c", "answer": "1", "task": "one"}\n',
        "mine",
    )
    found = outcomes(cases, [True, True, False], [True, False, False])
    assert [(each.task, each.cases, each.after.mean) for each in found] == [
        ("one", 2, 0.5),
        ("two", 1, 0.0),
    ]


def test_our_own_test_set_is_sound() -> None:
    cases = built_in_cases()
    assert len(cases) > 40
    assert len({case.prompt for case in cases}) == len(cases)
    assert {"sentiment", "topic", "sums", "facts", "code"} == {case.task for case in cases}


def test_differences_tell_what_was_asked_wanted_and_answered_and_what_got_lost_first() -> None:
    cases = [
        Case(prompt=f"{n}?", check=Check(contains="x") if n else Check(json={"n": 1}), task="t")
        for n in range(3)
    ]
    found = differences(
        cases,
        [(False, "no"), (True, "x"), (True, "same")],
        [(True, '{"n": 1}'), (False, "y"), (True, "same")],
    )
    assert [(each.prompt, each.check, each.a, each.b, each.better) for each in found] == [
        ("1?", 'contains "x"', "x", "y", "a"),
        ("0?", 'json {"n":1}', "no", '{"n": 1}', "b"),
    ]


def test_differences_are_few_and_short() -> None:
    long = "x" * 9000
    cases = [Case(prompt=long, check=Check(equals=long))] * 80
    found = differences(cases, [(True, long)] * 80, [(False, long)] * 80)
    assert len(found) == MOST_DIFFERENCES
    first = found[0]
    assert {len(text) for text in (first.prompt, first.check, first.a, first.b)} == {SHOWN}
