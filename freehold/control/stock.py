"""What control does about the bytes of models: looks after them on its own, and when told to."""

import asyncio

import msgspec

from freehold.control.beat import keep
from freehold.control.control import Control
from freehold.control.jobs import Job
from freehold.models.source import Progress

STOCK_EVERY = 15.0
VERIFY_EVERY = 60.0
TIDY_EVERY = 3600.0


async def look_after(control: Control, stop: asyncio.Event) -> None:
    """Take stock, read bytes again and tidy up until ``stop``; nothing else waits for it."""
    loop = asyncio.get_running_loop()

    async def take_stock() -> None:
        control.stock = await asyncio.to_thread(control.upkeep.storage)

    async def verify_due() -> None:
        await loop.run_in_executor(control.caretaker, control.upkeep.verify_due)

    async def tidy() -> None:
        await loop.run_in_executor(control.caretaker, control.upkeep.tidy)

    async def end() -> None:
        await stop.wait()
        control.upkeep.stop()

    await asyncio.gather(
        keep("taking stock", take_stock, STOCK_EVERY, stop),
        keep("reading bytes again", verify_due, VERIFY_EVERY, stop),
        keep("tidying the registry", tidy, TIDY_EVERY, stop),
        end(),
    )


def start_verify_all(control: Control) -> Job:
    """Start reading every version's bytes again; the job fails when any are damaged."""

    def work(progress: Progress) -> dict[str, object]:
        return {"files": control.upkeep.verify_all(progress)}

    return control.jobs.start("verify", "all versions", work)


def start_collect(control: Control, *, plan: bool, pack_after: float | None) -> Job:
    """Start deleting garbage and packing, or finding out what that would do."""

    def work(progress: Progress) -> dict[str, object]:
        found = control.upkeep.collect(progress, plan=plan, pack_after=pack_after)
        result: dict[str, object] = msgspec.to_builtins(found)
        return result

    return control.jobs.start("gc", "plan" if plan else "collect", work, same=pack_after)
