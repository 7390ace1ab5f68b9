"""Which launches keep away from a build that does not come up, and which never do."""

from typing import Any

import pytest
from msgspec.structs import replace

from freehold.models.deploy import Plan
from freehold.models.deployment import Deployment
from freehold.models.fallback import (
    TRIES,
    Doubt,
    doubted,
    fall_back,
    is_up,
    on_wheel,
    still,
    untried,
    without,
)
from freehold.runtime.engine import Launch, Native
from freehold.runtime.replica import Replica
from freehold.runtime.wish import Desired

NATIVE = Native(build="cpu-1", directory="/e/cpu-1", files=(("llama-server", "0"),))
LAUNCH = Launch(deployment="d", engine="llamacpp", model="d", weights="w", native=NATIVE)
WHEEL = replace(LAUNCH, native=None)
DOUBT = Doubt(build="cpu-1", reason="no card")


def plan(launch: Launch = LAUNCH, **fields: Any) -> Plan:
    deployment = Deployment(name="d", model="m", **fields)
    return Plan(deployment=deployment, desired=Desired(deployment="d", launches=(launch,)))


def failed(launch: Launch = LAUNCH, unstarted: int = TRIES) -> Replica:
    return Replica(id="r", launch=launch, state="failed", unstarted=unstarted, reason="no card")


def ready(launch: Launch) -> Replica:
    return Replica(id="s", launch=launch, state="ready")


@pytest.mark.parametrize(
    ("own", "default", "replica", "doubts"),
    [
        (None, "auto", failed(), True),
        ("auto", "wheel", failed(), True),
        (None, "auto", failed(unstarted=TRIES - 1), False),
        ("cpu-1", "auto", failed(), False),  # named: it fails and says so
        (None, "cpu-1", failed(), False),
        (None, "auto", failed(WHEEL), False),
        (None, "auto", failed(replace(LAUNCH, context=9)), False),  # nobody wants that any more
    ],
)
def test_only_what_was_chosen_and_does_not_start_is_doubted(
    own: str | None, default: str, replica: Replica, doubts: bool
) -> None:
    found = doubted([plan(build=own)], [replica], default)
    assert found == ({LAUNCH: DOUBT} if doubts else {})


def test_a_doubted_launch_is_the_wheels_and_says_why() -> None:
    other = plan(replace(LAUNCH, deployment="e"))
    guest = Plan(deployment=Deployment(name="g", model="a"), host="d", shared=LAUNCH)
    found = fall_back([plan(), other, guest], {LAUNCH: DOUBT})
    assert found[0].launch == WHEEL
    assert "cpu-1, which does not start (no card)" in str(found[0].note)
    assert found[1] == other
    assert found[2].launch == WHEEL


def test_doubts_end_with_the_wish_and_with_the_builds_acquittal() -> None:
    doubts = {LAUNCH: DOUBT}
    assert still([plan()], doubts) == doubts
    assert (
        still([plan(replace(LAUNCH, slots=9)), Plan(deployment=Deployment(name="x"))], doubts) == {}
    )
    assert without(doubts, "cpu-1") == {}
    assert without(doubts, "cpu-2") == doubts


def test_a_build_is_tried_once_the_wheel_came_up_and_only_then() -> None:
    doubts = {LAUNCH: DOUBT}
    assert untried(doubts, [failed(), failed(WHEEL)]) == []  # as like as not, it is the model
    assert untried(doubts, [failed(), ready(WHEEL)]) == [LAUNCH]
    assert untried({LAUNCH: replace(DOUBT, tried=True)}, [ready(WHEEL)]) == []
    assert on_wheel(LAUNCH) == WHEEL


def test_what_runs_on_a_build_shows_that_it_starts() -> None:
    assert is_up("cpu-1", [ready(replace(LAUNCH, deployment="e"))])
    assert not is_up("cpu-1", [failed(), ready(WHEEL)])
    assert not is_up("cpu-2", [ready(LAUNCH)])
