"""How the command line follows long work: patiently, and in words of the right kind."""

from collections.abc import Iterator

import msgspec
import pytest

from freehold.cli.client import Client
from freehold.cli.output import follow, how_far
from freehold.errors import FreeholdError

AWAY = (503, b'{"error": {"code": "unavailable.control", "message": "control is away"}}')
GONE = (404, b'{"error": {"code": "missing.job", "message": "jobs end with the process"}}')
RUNNING = {"id": "1", "kind": "engine", "subject": "build", "state": "running",
           "stage": "compile", "done": 3, "total": 12, "unit": "share", "error": None}  # fmt: skip
DONE = {**RUNNING, "state": "done", "result": {"id": "cpu-1"}}


class Scripted:
    """A door behind which somebody says what the script says, and nothing after it."""

    def __init__(self, *answers: tuple[int, bytes]) -> None:
        self.answers: Iterator[tuple[int, bytes]] = iter(answers)

    def ask(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, bytes]:
        return next(self.answers)

    def close(self) -> None:
        return


def said(job: object) -> tuple[int, bytes]:
    return 200, msgspec.json.encode(job)


def test_work_that_goes_on_is_followed_through_a_silence() -> None:
    door = Scripted(said(RUNNING), AWAY, AWAY, said(RUNNING), said(DONE))
    assert follow(Client(door), RUNNING, "engine") == {"id": "cpu-1"}
    assert list(door.answers) == []


def test_work_that_is_gone_is_not_waited_for() -> None:
    door = Scripted(AWAY, GONE, said(DONE))
    with pytest.raises(FreeholdError, match="jobs end with the process"):
        follow(Client(door), RUNNING, "engine")


def test_steps_are_no_bytes() -> None:
    assert how_far(RUNNING) == " 25%"
    assert (
        how_far({**RUNNING, "kind": "import", "unit": "bytes", "total": 1024 * 12})
        == " 3 B of 12.0 KiB"
    )
    assert how_far({**RUNNING, "total": 0}) == ""
