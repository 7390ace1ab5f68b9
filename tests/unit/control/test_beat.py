"""Whatever an act of the beat raises, the others go on and it is tried again."""

import asyncio
import logging

import pytest

from freehold.control.beat import keep


async def test_an_act_that_fails_is_tried_again_and_complained_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stop, tries = asyncio.Event(), []

    async def act() -> None:
        tries.append(1)
        if len(tries) == 20:
            stop.set()
        raise KeyError("anything")

    with caplog.at_level(logging.ERROR):
        await keep("the act", act, 0.001, stop)
    assert len(tries) == 20
    assert [record.message for record in caplog.records] == [
        "the act failed and is tried again: KeyError: 'anything'"
    ]


@pytest.mark.parametrize(
    ("raised", "shown"), [(OSError(28, "No space left on device"), False), (KeyError("x"), True)]
)
async def test_what_is_foreseen_needs_no_traceback(
    raised: Exception, shown: bool, caplog: pytest.LogCaptureFixture
) -> None:
    stop = asyncio.Event()

    async def act() -> None:
        stop.set()
        raise raised

    await keep("the act", act, 0.001, stop)
    assert [bool(record.exc_info) for record in caplog.records] == [shown]


async def test_a_stop_is_heard_at_once() -> None:
    stop = asyncio.Event()
    task = asyncio.create_task(keep("x", lambda: None, 3600, stop))
    await asyncio.sleep(0)
    stop.set()
    await asyncio.wait_for(task, 5)
