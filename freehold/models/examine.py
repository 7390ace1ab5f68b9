"""A trial of two versions: the same questions to both, and what their answers say."""

from pathlib import Path
from typing import Annotated

import msgspec

from freehold.errors import Invalid
from freehold.models.answering import Exam
from freehold.models.compress.report import Speed
from freehold.models.compress.weigh import built_in_cases, examine
from freehold.models.registry import Version
from freehold.models.source import Progress
from freehold.models.trial import (
    MARGIN,
    Case,
    Difference,
    Outcome,
    differences,
    outcome,
    outcomes,
    read_cases,
)

Margin = Annotated[float, msgspec.Meta(ge=0, le=0.5)]


class TrialRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``tests`` is JSON lines, ours when none; ``margin`` is a change that counts as none."""

    tests: str | None = None
    margin: Margin = MARGIN


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What a trial found: in all, by task, and how fast both are."""

    a: str
    b: str
    overall: Outcome
    tasks: tuple[Outcome, ...]
    a_speed: Speed
    b_speed: Speed
    differing: int = 0
    """Cases that one passed and the other did not; the first of them are ``differences``."""
    differences: tuple[Difference, ...] = ()


def cases_of(a: Version, b: Version, request: TrialRequest) -> list[Case]:
    """Return what to ask; ``Invalid`` when these two cannot be asked, or not this."""
    for version in (a, b):
        if version.manifest.task not in ("chat", "completion"):
            raise Invalid(
                "invalid.trial",
                f"{version.row.model}:{version.row.number} does {version.manifest.task}: a trial "
                "asks models that write",
            )
    if request.tests is None:
        return built_in_cases()
    return read_cases(request.tests.encode(), "the tests")


def examine_versions(
    a: Version, b: Version, a_path: Path, b_path: Path, request: TrialRequest, progress: Progress
) -> Trial:
    """Ask both, one after the other; blocks."""
    cases = cases_of(a, b, request)
    marks = [
        examine(
            Exam(weights=str(path), cases=tuple(cases), chat=version.manifest.task == "chat"),
            progress,
        )
        for version, path in ((a, a_path), (b, b_path))
    ]
    answered = [list(zip(m.passed, m.answers, strict=True)) for m in marks]
    speeds = [Speed(read=m.read, write=m.write, memory=m.memory) for m in marks]
    return Trial(
        a=f"{a.row.model}:{a.row.number}",
        b=f"{b.row.model}:{b.row.number}",
        overall=outcome("all", marks[0].passed, marks[1].passed, request.margin),
        tasks=tuple(outcomes(cases, marks[0].passed, marks[1].passed, request.margin)),
        a_speed=speeds[0],
        b_speed=speeds[1],
        differing=sum(one != other for one, other in zip(*(m.passed for m in marks), strict=True)),
        differences=tuple(differences(cases, *answered)),
    )
