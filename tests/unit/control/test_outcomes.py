"""What the record says of a job's end, and what it never says."""

import pytest

from freehold.control.jobs import Failure, Job
from freehold.control.outcomes import outcome, plain
from freehold.record.entry import Entry


@pytest.mark.parametrize(
    ("code", "is_said"),
    [
        (None, "ok"), ("invalid.gguf", "refused"), ("forbidden.unsigned", "refused"),
        ("unavailable.source", "failed"), ("broken.internal", "failed"),
        ("unavailable.cancelled", "cancelled"),
    ],
)  # fmt: skip
def test_how_it_ended(code: str | None, is_said: str) -> None:
    job = Job(id="1", kind="import", subject="x as y", error=Failure(code, "") if code else None)
    asked = Entry(id="r", at=0.0, action="model:import", principal="ann", key="k")
    found = outcome(job, asked, 5.0)
    assert (found.outcome, found.error, found.at) == (is_said, code, 5.0)
    assert (found.action, found.principal, found.key) == ("model:import", "ann", "k")
    assert found.id != asked.id
    assert outcome(job, None, 5.0).action == "job:import"


def test_what_came_of_it_is_named() -> None:
    job = Job(id="1", kind="import", subject="x", result={"model": "m", "version": 3})
    found = outcome(job, None, 0.0)
    assert (found.model, found.version) == ("m", 3)
    assert found.subject == "import x, job 1 ended: m:3"


def test_secrets_of_a_source_are_not_recorded() -> None:
    assert plain("https://me:secret@host/x.gguf?token=secret as y") == "https://host/x.gguf as y"
    assert len(plain("x" * 5000)) == 300
