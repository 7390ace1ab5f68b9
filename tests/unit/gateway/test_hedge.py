"""Two sources race; the loser is closed, whatever happens."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from freehold.gateway.hedge import hedged


class Source:
    """Yields its name twice after ``wait`` seconds, or fails; knows whether it was closed."""

    def __init__(self, name: str, wait: float, *, fails: bool = False) -> None:
        self.name, self.wait, self.fails = name, wait, fails
        self.closed = False

    async def __call__(self) -> AsyncGenerator[str, None]:
        try:
            await asyncio.sleep(self.wait)
            if self.fails:
                raise LookupError(self.name)
            yield self.name
            yield self.name
        finally:
            self.closed = True


async def race(one: Source, two: Source | None, delay: float = 0.01) -> list[str]:
    async def second() -> AsyncGenerator[str, None] | None:
        return two() if two is not None else None

    before = asyncio.all_tasks()
    try:
        return [item async for item in hedged(one(), second, delay)]
    finally:
        assert one.closed
        assert asyncio.all_tasks() <= before


@pytest.mark.parametrize(
    ("one", "two", "winner"),
    [
        (Source("a", 0), Source("b", 0), "a"),
        (Source("a", 5), Source("b", 0), "b"),
        (Source("a", 0.05), Source("b", 5), "a"),
        (Source("a", 0.05), None, "a"),
        (Source("a", 0.03, fails=True), Source("b", 0.06), "b"),
        (Source("a", 0.06), Source("b", 0, fails=True), "a"),
    ],
)
async def test_who_produces_first_wins(one: Source, two: Source | None, winner: str) -> None:
    assert await race(one, two) == [winner, winner]


async def test_the_second_is_not_asked_in_vain() -> None:
    unasked = Source("b", 0)
    assert await race(Source("a", 0), unasked, delay=1) == ["a", "a"]
    assert not unasked.closed
    with pytest.raises(LookupError):
        await race(Source("a", 0, fails=True), unasked, delay=1)
    assert not unasked.closed


async def test_both_fail() -> None:
    with pytest.raises(LookupError, match="a"):
        await race(Source("a", 0.06, fails=True), Source("b", 0, fails=True))


async def test_a_client_that_leaves_takes_both_along() -> None:
    one, two = Source("a", 5), Source("b", 5)
    task = asyncio.create_task(race(one, two))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert one.closed
    assert two.closed
