"""Ask a second time while the first has produced nothing; who produces first wins."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")
Race = Coroutine[Any, Any, T]


async def hedged(
    first: Race[T],
    second: Callable[[], Awaitable[Race[T] | None]],
    delay: float,
    lose: Callable[[T], None],
) -> T:
    """Return what the winner does; the other is cancelled, or handed to ``lose`` if it came too.

    ``second`` is called when ``first`` has taken ``delay`` seconds; it may have nobody to ask.
    Where both fail, the error is that of the one that failed last.
    """
    runners, winner = {asyncio.create_task(first)}, None
    try:
        await asyncio.wait(runners, timeout=delay)
        if not any(task.done() for task in runners) and (other := await second()) is not None:
            runners.add(asyncio.create_task(other))
        winner = await _winner(runners)
        runners.discard(winner)
    finally:
        try:
            await _close(runners, lose)
        except asyncio.CancelledError:  # while the loser ends: nobody takes what the winner brings
            if winner is not None:
                _end(lose, winner)
            raise
    return winner.result()


async def _winner(runners: set[asyncio.Task[T]]) -> asyncio.Task[T]:
    """Return the first that came through, else the last that failed."""
    running = set(runners)
    while True:
        done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        good = next((task for task in done if task.exception() is None), None)
        if good is not None or not running:
            return good or done.pop()


async def _close(runners: set[asyncio.Task[T]], lose: Callable[[T], None]) -> None:
    """Return once they have ended; they do so too when this is given up."""
    for task in runners:
        if task.done():
            _end(lose, task)
        else:
            task.cancel()
            task.add_done_callback(partial(_end, lose))
    if runners:
        await asyncio.wait(runners)


def _end(lose: Callable[[T], None], task: asyncio.Task[T]) -> None:
    # An exception is looked at, so that nobody complains of it.
    if not task.cancelled() and task.exception() is None:
        lose(task.result())
