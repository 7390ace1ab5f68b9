"""One timer looks after all deadlines, and stops when there are none."""

import asyncio

import pytest

from freehold.gateway.alarm import BEAT, Alarms, Deadline


class Bell:
    def __init__(self) -> None:
        self.rang: list[float] = []

    def ring(self, now: float) -> None:
        self.rang.append(now)


async def test_an_alarm_hears_the_time_until_it_is_cleared() -> None:
    alarms, bell, other = Alarms(asyncio.get_running_loop()), Bell(), Bell()
    alarms.set(bell)
    alarms.set(other)
    await asyncio.sleep(3.5 * BEAT)
    alarms.clear(bell)
    heard = len(bell.rang)
    assert heard >= 2
    assert bell.rang == other.rang
    await asyncio.sleep(3 * BEAT)
    assert len(bell.rang) == heard
    assert len(other.rang) > heard
    alarms.clear(other)
    alarms.clear(other)


async def test_a_block_that_takes_too_long_is_ended() -> None:
    alarms = Alarms(asyncio.get_running_loop())
    with pytest.raises(TimeoutError), Deadline(alarms, 0.05):
        await asyncio.sleep(5)
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    with Deadline(alarms, 0.05) as deadline:
        deadline.due += 5
        await asyncio.sleep(0.1)


async def test_a_block_that_ends_in_time_is_left_alone() -> None:
    alarms = Alarms(asyncio.get_running_loop())
    with pytest.raises(LookupError), Deadline(alarms, 0.01):
        raise LookupError
    await asyncio.sleep(3 * BEAT)


async def test_a_cancelled_task_is_no_deadline() -> None:
    async def work() -> None:
        with Deadline(Alarms(asyncio.get_running_loop()), 5):
            await asyncio.sleep(5)

    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
