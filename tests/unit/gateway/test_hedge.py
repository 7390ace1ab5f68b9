"""Two races for one answer; the loser is given up, whatever happens."""

import asyncio

import pytest

from freehold.gateway.hedge import hedged


class Runner:
    """Returns its name after ``wait`` seconds, or fails; knows what became of it."""

    def __init__(self, name: str, wait: float, *, fails: bool = False) -> None:
        self.name, self.wait, self.fails = name, wait, fails
        self.started = self.ended = False

    async def __call__(self) -> str:
        self.started = True
        try:
            await asyncio.sleep(self.wait)
            if self.fails:
                raise LookupError(self.name)
            return self.name
        finally:
            self.ended = True


async def race(one: Runner, two: Runner | None, delay: float = 0.01) -> tuple[str, list[str]]:
    lost: list[str] = []

    async def second():  # type: ignore[no-untyped-def]
        return two() if two is not None else None

    before = asyncio.all_tasks()
    try:
        return await hedged(one(), second, delay, lost.append), lost
    finally:
        assert one.ended
        assert two is None or two.started == two.ended
        assert asyncio.all_tasks() <= before


@pytest.mark.parametrize(
    ("one", "two", "winner"),
    [
        (Runner("a", 0), Runner("b", 0), "a"),
        (Runner("a", 5), Runner("b", 0), "b"),
        (Runner("a", 0.05), Runner("b", 5), "a"),
        (Runner("a", 0.05), None, "a"),
        (Runner("a", 0.03, fails=True), Runner("b", 0.06), "b"),
        (Runner("a", 0.06), Runner("b", 0, fails=True), "a"),
    ],
)
async def test_who_comes_first_wins(one: Runner, two: Runner | None, winner: str) -> None:
    assert await race(one, two) == (winner, [])


async def test_who_comes_at_the_same_moment_is_told_to_let_go() -> None:
    """Both are done before anybody looks: what the loser holds must not be forgotten."""
    gate = asyncio.Event()
    lost: list[str] = []

    async def through(name: str) -> str:
        await gate.wait()
        return name

    async def second():  # type: ignore[no-untyped-def]
        asyncio.get_running_loop().call_later(0.01, gate.set)
        return through("b")

    won = await hedged(through("a"), second, 0.01, lost.append)
    assert {won, *lost} == {"a", "b"}


async def test_the_second_is_not_asked_in_vain() -> None:
    unasked = Runner("b", 0)
    assert await race(Runner("a", 0), unasked, delay=1) == ("a", [])
    assert not unasked.started
    with pytest.raises(LookupError):
        await race(Runner("a", 0, fails=True), unasked, delay=1)
    assert not unasked.started


async def test_both_fail() -> None:
    with pytest.raises(LookupError, match="a"):
        await race(Runner("a", 0.06, fails=True), Runner("b", 0, fails=True))


async def test_a_client_that_leaves_takes_both_along() -> None:
    one, two = Runner("a", 5), Runner("b", 5)
    task = asyncio.create_task(race(one, two))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert one.ended
    assert two.ended


@pytest.mark.parametrize("cancellations", [1, 2])
async def test_a_client_that_leaves_at_any_moment_leaves_nothing_behind(
    cancellations: int,
) -> None:
    """Whatever a runner brings is given to the caller or told to let go, at every step."""

    async def through(name: str, steps: int, held: set[str]) -> str:
        try:
            for _ in range(steps):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # letting go takes a moment
            raise
        held.add(name)
        return name

    async def hedge(steps: int, held: set[str]) -> str:
        async def second():  # type: ignore[no-untyped-def]
            return through("b", steps, held)

        won = await hedged(through("a", steps + 3, held), second, 0, held.discard)
        held.discard(won)
        return won

    for steps in range(8):
        for moment in range(25):
            held: set[str] = set()
            task = asyncio.create_task(hedge(steps, held))
            for _ in range(moment):
                await asyncio.sleep(0)
            for _ in range(cancellations):
                task.cancel()
                await asyncio.sleep(0)
            await asyncio.gather(task, return_exceptions=True)
            for _ in range(10):
                await asyncio.sleep(0)
            assert not held, (steps, moment)
            assert len(asyncio.all_tasks()) == 1
