"""Deadlines end the wait for an engine, and nothing else does."""

import asyncio

import pytest

from freehold.errors import TooSlow
from freehold.gateway.watch import Watch
from freehold.store.snapshot import Deadlines

SHORT = Deadlines(headers=0.05, first_token=0.1, token=0.05, total=1.0)


def watch(limits: Deadlines = SHORT, total: float = 1.0) -> Watch:
    return Watch(limits, asyncio.get_running_loop().time() + total)


def late(caught: pytest.ExceptionInfo[TooSlow]) -> object:
    return caught.value.details["deadline"]


async def test_each_stage_has_its_deadline() -> None:
    found = watch()
    with pytest.raises(TooSlow) as caught:
        await found.wait(asyncio.sleep(5))
    assert late(caught) == "headers"
    found = watch()
    found.streaming()
    with pytest.raises(TooSlow) as caught:
        await found.wait(asyncio.sleep(5))
    assert late(caught) == "first_token"
    found.progressed()
    with pytest.raises(TooSlow) as caught:
        await watch(total=0.02).wait(asyncio.sleep(5))
    assert late(caught) == "total"


async def test_progress_moves_the_deadline_and_a_slow_client_costs_nothing() -> None:
    found = watch()
    found.streaming()
    for _ in range(5):
        assert await found.wait(asyncio.sleep(0.02, "a token")) == "a token"
        found.progressed()
    await asyncio.sleep(0.1)  # the client is slow, the engine is not
    found.progressed()
    assert await found.wait(asyncio.sleep(0.01, "more")) == "more"
    with pytest.raises(TooSlow) as caught:
        await found.wait(asyncio.sleep(5))
    assert late(caught) == "token"
    found.close()


async def test_a_cancelled_request_is_no_deadline() -> None:
    task = asyncio.create_task(watch().wait(asyncio.sleep(5)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_errors_and_results_pass() -> None:
    async def failing() -> None:
        raise LookupError

    found = watch()
    with pytest.raises(LookupError):
        await found.wait(failing())
    found.close()
    await asyncio.sleep(0.1)  # and nothing fires later
