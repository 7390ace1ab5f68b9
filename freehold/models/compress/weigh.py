"""Ask both versions the same questions and time them: a child each, one after the other."""

import sys
import tempfile
from importlib.resources import files
from pathlib import Path

import msgspec
import psutil

from freehold.errors import EngineLost
from freehold.models.answering import Exam, Marks
from freehold.models.child import Ended, ask
from freehold.models.compress.report import Speed, Task
from freehold.models.registry import Version
from freehold.models.source import Progress
from freehold.models.trial import Case, outcomes, read_cases


class Weighed(msgspec.Struct, frozen=True, kw_only=True):
    """What both versions did: tasks, speed and memory before and after."""

    tasks: tuple[Task, ...] = ()
    before: Speed | None = None
    after: Speed | None = None


def built_in_cases() -> list[Case]:
    """Return our own small test set for models that chat."""
    data = (files("freehold.models") / "trials" / "chat.jsonl").read_bytes()
    return read_cases(data, "the built-in tests")


def weigh(
    before: Path,
    after: Path,
    version: Version,
    tasks: str | None,
    progress: Progress,
) -> Weighed:
    """Run the tenant's tasks, or ours, on both files; time both."""
    if version.manifest.task not in ("chat", "completion"):
        return Weighed()
    cases = read_cases(tasks.encode(), "the tasks") if tasks is not None else built_in_cases()
    chat = version.manifest.task == "chat"
    marks = [
        examine(Exam(weights=str(path), cases=tuple(cases), chat=chat, threads=_cores()), progress)
        for path in (before, after)
    ]
    found = outcomes(cases, marks[0].passed, marks[1].passed)
    return Weighed(
        tasks=tuple(
            Task(
                name=each.task, cases=each.cases, before=each.before, after=each.after,
                change=each.change, verdict=each.verdict,
            )
            for each in found
        ),
        before=_speed(marks[0]),
        after=_speed(marks[1]),
    )  # fmt: skip


def examine(exam: Exam, progress: Progress) -> Marks:
    """Run an exam in a child of its own; blocks."""
    size = Path(exam.weights).stat().st_size
    argv = [sys.executable, "-m", "freehold.models.answering"]
    with tempfile.TemporaryFile() as errors:
        answer = ask(argv, exam, errors, progress, size)
    if isinstance(answer, Ended):
        raise EngineLost(
            "unavailable.trial",
            f"the process that asks the model ended by itself ({answer.code}): {answer.words}",
        )
    return msgspec.convert(answer["marks"], Marks)


def _speed(marks: Marks) -> Speed:
    return Speed(read=marks.read, write=marks.write, memory=marks.memory)


def _cores() -> int:
    return psutil.cpu_count(logical=False) or 1
