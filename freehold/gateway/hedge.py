"""Ask a second time while the first has produced nothing; who produces first wins."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

T = TypeVar("T")
Source = AsyncGenerator[T, None]


async def hedged(
    first: Source[T], second: Callable[[], Awaitable[Source[T] | None]], delay: float
) -> AsyncGenerator[T, None]:
    """Yield what the winner yields; the other is closed at once.

    ``second`` is called when ``first`` has yielded nothing for ``delay`` seconds; it may have
    nobody to ask. Where both fail, the error is that of the one that failed last.
    """
    runners = {_start(first): first}
    try:
        await asyncio.wait(runners, timeout=delay)
        if not any(task.done() for task in runners) and (other := await second()) is not None:
            runners[_start(other)] = other
        task = await _winner(runners)
        source = runners.pop(task)
        await _close(runners)
        async with aclosing(source):
            yield task.result()
            async for item in source:
                yield item
    finally:
        await _close(runners)


async def _winner(runners: dict[asyncio.Task[T], Source[T]]) -> asyncio.Task[T]:
    """Return the first that produced something, else the last that failed."""
    running = set(runners)
    while True:
        done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        good = next((task for task in done if task.exception() is None), None)
        if good is not None or not running:
            return good or done.pop()


async def _close(runners: dict[asyncio.Task[T], Source[T]]) -> None:
    for task in runners:
        task.cancel()
    if runners:
        await asyncio.wait(runners)
    while runners:
        task, source = runners.popitem()
        if not task.cancelled():
            task.exception()  # looked at, so that nobody complains of it
        await source.aclose()


def _start(source: Source[T]) -> asyncio.Task[T]:
    return asyncio.create_task(_next(source))


async def _next(source: Source[T]) -> T:
    return await anext(source)
