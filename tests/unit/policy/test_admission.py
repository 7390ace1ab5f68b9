"""Turns at the engines, over two gateways that share nothing but cells."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from freehold.errors import NoCapacity, OverQuota
from freehold.policy.admission import Admission
from freehold.policy.cells import Cells
from freehold.settings import Quotas
from freehold.store.snapshot import Route


def route(slots: int | None = 1) -> Route:
    return Route(deployment="d", engine="e", place="local", task="chat", state="ready", slots=slots)


class Two:
    """Two gateways before one deployment."""

    def __init__(self, folder: Path, settings: Quotas) -> None:
        self.cells = [Cells(folder, slot, 2) for slot in (1, 2)]
        self.doors = [Admission(cells, settings, lambda: None) for cells in self.cells]
        self.served: list[str] = []

    async def visit(self, door: int, name: str, tenant: str, slots: int | None = 1) -> None:
        await self.doors[door].enter(name, tenant, route(slots))
        self.served.append(name)
        await asyncio.sleep(0.005)
        self.doors[door].leave(name)

    async def close(self) -> None:
        for door in self.doors:
            await door.close()
        for cells in self.cells:
            cells.close()


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Two]:
    made = Two(tmp_path, Quotas(line=4, longest_wait=5.0, weights={"big": 3}))
    yield made
    await made.close()


async def test_no_more_run_than_there_are_slots_over_all_gateways(two: Two) -> None:
    running = most = 0

    async def visit(number: int) -> None:
        nonlocal running, most
        await two.doors[number % 2].enter(str(number), "t", route(2))
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        running -= 1
        two.doors[number % 2].leave(str(number))

    await asyncio.gather(*map(visit, range(10)))
    assert most == 2


async def test_without_known_slots_nobody_waits(two: Two) -> None:
    for number in range(50):
        await two.doors[0].enter(str(number), "t", route(None))
    for number in range(50):
        two.doors[0].leave(str(number))


async def test_tenants_take_turns_also_across_gateways(two: Two) -> None:
    await two.doors[0].enter("first", "greedy", route())
    greedy = [asyncio.create_task(two.visit(0, f"greedy{n}", "greedy")) for n in range(4)]
    await asyncio.sleep(0.01)
    modest = asyncio.create_task(two.visit(1, "modest", "modest"))
    await asyncio.sleep(0.01)
    two.doors[0].leave("first")
    await asyncio.gather(*greedy, modest)
    assert two.served.index("modest") <= 1


async def test_a_full_line_sheds_who_has_most_in_it(two: Two) -> None:
    await two.doors[0].enter("first", "greedy", route())
    greedy = [asyncio.create_task(two.visit(0, f"greedy{n}", "greedy")) for n in range(4)]
    await asyncio.sleep(0)
    with pytest.raises(NoCapacity) as alone:
        await two.visit(0, "greedy4", "greedy")
    assert alone.value.code == "unavailable.busy"
    modest = asyncio.create_task(two.visit(0, "modest", "modest"))
    await asyncio.sleep(0)
    with pytest.raises(OverQuota) as share:
        await two.visit(0, "greedy5", "greedy")
    assert share.value.code == "quota.share"
    two.doors[0].leave("first")
    found = await asyncio.gather(*greedy, return_exceptions=True)
    await modest
    assert [type(each) for each in found] == [type(None)] * 3 + [OverQuota]
    assert "modest" in two.served


async def test_who_waits_too_long_is_told_and_takes_no_slot(tmp_path: Path) -> None:
    two = Two(tmp_path, Quotas(longest_wait=0.05))
    await two.doors[0].enter("first", "t", route())
    with pytest.raises(NoCapacity) as caught:
        await two.visit(0, "late", "t")
    assert caught.value.retry_after
    gone = asyncio.create_task(two.visit(0, "hung up", "t"))
    await asyncio.sleep(0.01)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    two.doors[0].leave("first")
    await two.visit(1, "next", "t")
    await two.close()


async def test_a_line_that_would_take_too_long_is_not_joined(tmp_path: Path) -> None:
    two = Two(tmp_path, Quotas(longest_wait=0.02))
    await two.doors[0].enter("slow", "t", route())
    await asyncio.sleep(0.03)
    two.doors[0].leave("slow")
    await two.doors[0].enter("first", "t", route())
    second = asyncio.create_task(two.visit(0, "second", "t"))
    await asyncio.sleep(0)
    assert isinstance(second.exception(), NoCapacity)
    two.doors[0].leave("first")
    await two.close()


async def test_nobody_waits_longer_than_they_have_time(two: Two) -> None:
    await two.doors[0].enter("first", "t", route())
    begun = asyncio.get_running_loop().time()
    with pytest.raises(NoCapacity):
        await two.doors[0].enter("hurried", "t", route(), 0.03)
    assert asyncio.get_running_loop().time() - begun < 1
    two.doors[0].leave("first")
    await two.visit(1, "next", "t")


async def test_a_slot_is_given_back_while_another_process_hangs_with_the_lock(two: Two) -> None:
    await two.doors[0].enter("first", "t", route())
    waiting = asyncio.create_task(two.visit(0, "second", "t"))
    await asyncio.sleep(0.01)
    with two.cells[1].lock():
        two.doors[0].leave("first")
    await asyncio.wait_for(waiting, 3)
    await two.visit(1, "next", "t")
