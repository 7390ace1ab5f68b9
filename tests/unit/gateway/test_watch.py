"""Deadlines end the wait for an engine, and nothing else does."""

import asyncio

import pytest

from freehold.errors import TooSlow
from freehold.gateway.watch import Watch
from freehold.store.snapshot import Deadlines

SHORT = Deadlines(headers=10, first_token=20, token=5, total=100)


class Wait:
    """A connection, as far as a watch knows it."""

    def __init__(self, *, waits: bool = True, headed: bool = False) -> None:
        self.waits, self.headed = waits, headed
        self.error: TooSlow | None = None

    def fail(self, error: Exception) -> None:
        assert isinstance(error, TooSlow)
        self.error = error


def watch(wait: Wait, total: float = 100) -> Watch:
    found = Watch(SHORT, asyncio.get_running_loop().time() + total, asyncio.get_running_loop())
    found.on = wait
    return found


def passed(found: Watch, wait: Wait, seconds: float) -> object:
    """Return which deadline has passed after so many seconds from now, if any."""
    wait.error = None
    found.ring(asyncio.get_running_loop().time() + seconds)
    return wait.error.details["deadline"] if wait.error is not None else None


async def test_each_stage_has_its_deadline() -> None:
    wait = Wait()
    found = watch(wait)
    assert [passed(found, wait, seconds) for seconds in (9, 11)] == [None, "headers"]
    found.streaming()
    assert [passed(found, wait, seconds) for seconds in (11, 19, 21)] == [None, None, "first_token"]
    found.progressed()
    assert [passed(found, wait, seconds) for seconds in (4, 6)] == [None, "token"]
    found.closing()
    assert [passed(found, wait, seconds) for seconds in (1, 3)] == [None, "token"]


@pytest.mark.parametrize("stage", ["headers", "streaming", "progressed"])
async def test_nothing_outlasts_the_whole(stage: str) -> None:
    wait = Wait()
    found = watch(wait, total=3)
    if stage != "headers":
        getattr(found, stage)()
    assert [passed(found, wait, seconds) for seconds in (2, 4)] == [None, "total"]


async def test_a_document_that_has_begun_in_time_gets_time_for_its_rest() -> None:
    wait = Wait(headed=True)
    found = watch(wait)
    assert [passed(found, wait, seconds) for seconds in (11, 15, 17)] == [None, None, "token"]


async def test_a_slow_client_costs_nothing() -> None:
    wait = Wait(waits=False)
    found = watch(wait)
    found.progressed()
    assert passed(found, wait, 50) is None
    wait.waits = True
    assert passed(found, wait, 50) == "token"
