"""The one gate for compression, updates and routing: checks, asked of two versions. Pure.

A test set is JSON lines, one case a line: ``{"prompt": ..., "check": {...}}`` with one check, or
``{"prompt": ..., "answer": ...}`` for an answer that must be in what comes. The verdict looks at
the cases on which the two differ: better or worse beyond doubt, the same within a margin, or
undecided because there are too few cases to say.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from freehold.errors import Invalid
from freehold.models.intervals import Interval, paired, wilson
from freehold.models.sandbox import runs

Verdict = Literal["better", "same", "worse", "undecided"]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=20_000)]

MOST_BYTES = 4 * 1024 * 1024
MOST_CASES = 5000
LONGEST_ANSWER = 20_000
MOST_DIFFERENCES = 50
SHOWN = 400
"""Characters of a prompt, a check or an answer that a difference shows: enough to see what came."""
MARGIN = 0.05
"""Change of the share of passed checks that counts as none, unless another is asked for."""


class Check(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an answer must satisfy: exactly one of these.

    ``equals``, ``contains`` and ``one_of`` look past case, spaces around and a full stop.
    ``json`` holds keys and values that the answer, read as JSON, must have. ``code`` is Python
    that must run without error after the answer's code.
    """

    equals: Text | None = None
    contains: Text | None = None
    regex: Text | None = None
    json: dict[str, object] | None = None
    one_of: Annotated[tuple[Text, ...], msgspec.Meta(min_length=1)] | None = None
    code: Text | None = None


class Case(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One question. ``task`` groups cases in a report; ``tokens`` limits the answer."""

    prompt: Text
    check: Check | None = None
    answer: Text | None = None
    task: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9 _-]{1,40}$")] = "tests"
    tokens: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 64


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a trial found of one task, or of all: shares passed, their paired change, a verdict."""

    task: str
    cases: int
    before: Interval
    after: Interval
    change: Interval
    verdict: Verdict


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A case that one version passed and the other did not; texts are cut to ``SHOWN``.

    ``better`` says which of the two passed: a or b.
    """

    task: str
    prompt: str
    check: str
    a: str
    b: str
    better: Literal["a", "b"]


def read_cases(data: bytes, name: str) -> list[Case]:
    """Read a test set strictly; ``Invalid`` names the line that is wrong."""
    if len(data) > MOST_BYTES:
        raise _invalid(name, f"it has {len(data)} bytes, {MOST_BYTES >> 20} MiB at most are read")
    cases = []
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            case = msgspec.json.decode(line, type=Case)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _invalid(name, f"line {number}: {error}") from error
        cases.append(_checked(case, name, number))
    if not cases:
        raise _invalid(name, "it holds no case")
    if len(cases) > MOST_CASES:
        raise _invalid(name, f"it holds {len(cases)} cases, {MOST_CASES} at most are asked")
    return cases


def passes(check: Check, answer: str) -> bool:
    """Say whether an answer satisfies a check. Runs code in a sandbox; call it in a child."""
    answer = answer[:LONGEST_ANSWER]
    if check.equals is not None:
        return _plain(answer) == _plain(check.equals)
    if check.contains is not None:
        return _plain(check.contains) in _plain(answer)
    if check.one_of is not None:
        # The first of them that is named counts: models like to go on.
        found = [
            (match.start(), word)
            for word in check.one_of
            if (match := re.search(rf"(?<!\w){re.escape(_plain(word))}(?!\w)", _plain(answer)))
        ]
        return bool(found) and min(found)[1] == check.one_of[0]
    if check.regex is not None:
        return re.search(check.regex, answer) is not None
    if check.json is not None:
        return _holds(check.json, answer)
    assert check.code is not None
    return runs(code_of(answer), check.code)


def outcome(
    task: str, before: Sequence[bool], after: Sequence[bool], margin: float = MARGIN
) -> Outcome:
    """Return what two runs of the same cases say about a task."""
    change = paired(before, after)
    return Outcome(
        task=task,
        cases=len(before),
        before=wilson(sum(before), len(before)),
        after=wilson(sum(after), len(after)),
        change=change,
        verdict=verdict(change, margin),
    )


def outcomes(
    cases: Sequence[Case], before: Sequence[bool], after: Sequence[bool], margin: float = MARGIN
) -> list[Outcome]:
    """Return the outcome of each task, in the order in which they first appear."""
    found = []
    for task in dict.fromkeys(case.task for case in cases):
        at = [index for index, case in enumerate(cases) if case.task == task]
        pair = [before[i] for i in at], [after[i] for i in at]
        found.append(outcome(task, *pair, margin))
    return found


def differences(
    cases: Sequence[Case], a: Sequence[tuple[bool, str]], b: Sequence[tuple[bool, str]]
) -> list[Difference]:
    """Return where two runs part, each as passed and answer; what got lost comes first."""
    found = [
        Difference(
            task=case.task,
            prompt=case.prompt[:SHOWN],
            check=_told(case.check),
            a=one[1][:SHOWN],
            b=other[1][:SHOWN],
            better="a" if one[0] else "b",
        )
        for case, one, other in zip(cases, a, b, strict=True)
        if one[0] != other[0]
    ]
    return sorted(found, key=lambda each: each.better)[:MOST_DIFFERENCES]


def verdict(change: Interval, margin: float) -> Verdict:
    """Return what an interval of a change says."""
    if change.low > 0:
        return "better"
    if change.high < 0:
        return "same" if change.low >= -margin else "worse"
    return "same" if change.low >= -margin and change.high <= margin else "undecided"


def code_of(answer: str) -> str:
    """Return the code in an answer: its first fenced block, or all of it."""
    fence = re.search(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", answer, re.DOTALL)
    return fence[1] if fence else answer


def _checked(case: Case, name: str, number: int) -> Case:
    if (case.check is None) == (case.answer is None):
        raise _invalid(name, f"line {number}: give either a check or an answer")
    if case.answer is not None:
        return msgspec.structs.replace(case, check=Check(contains=case.answer), answer=None)
    assert case.check is not None
    given = [f for f in case.check.__struct_fields__ if getattr(case.check, f) is not None]
    if len(given) != 1:
        raise _invalid(name, f"line {number}: a check is exactly one of {', '.join(_KINDS)}")
    if case.check.regex is not None:
        try:
            re.compile(case.check.regex)
        except re.error as error:
            raise _invalid(name, f"line {number}: the regex is wrong: {error}") from error
    return case


_KINDS = Check.__struct_fields__


def _told(check: Check | None) -> str:
    """Return a check in words: which of them it is, and what it wants."""
    if check is None:
        return ""
    kind = next(field for field in _KINDS if getattr(check, field) is not None)
    return f"{kind} {msgspec.json.encode(getattr(check, kind)).decode()}"[:SHOWN]


def _plain(text: str) -> str:
    return text.strip().strip("\"'`*").rstrip(".").strip().casefold()


def _holds(wanted: dict[str, object], answer: str) -> bool:
    block = re.search(r"\{.*\}", answer, re.DOTALL)
    try:
        found = msgspec.json.decode(block[0], type=dict[str, object]) if block else {}
    except (msgspec.DecodeError, UnicodeEncodeError):
        return False
    return all(key in found and found[key] == value for key, value in wanted.items())


def _invalid(name: str, why: str) -> Invalid:
    return Invalid(
        "invalid.tests",
        f"cannot test with {name}: {why}; give JSON lines such as "
        '{"prompt": "2+2?", "check": {"equals": "4"}}',
        param="tests",
    )
