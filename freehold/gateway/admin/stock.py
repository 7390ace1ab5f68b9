"""The bytes of all models together: how much they take, garbage, checks."""

import asyncio

import msgspec

from freehold.control.control import Control
from freehold.control.jobs import Job
from freehold.control.stock import start_collect, start_verify_all
from freehold.gateway.admin.ask import Ask, Body
from freehold.models.room import Use
from freehold.models.upkeep import Storage
from freehold.settings import Seconds


class RegistryView(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored, and who has how much of what they may."""

    storage: Storage
    uses: list[Use]


class CollectBody(Body, frozen=True):
    """How to collect. ``plan`` only says what would be done; ``pack_after`` is in seconds."""

    plan: bool = False
    pack_after: Seconds | None = None


async def show(_ask: Ask, control: Control) -> RegistryView:
    """Show what the registry takes, what sharing saves, and how it was last found."""
    storage = await asyncio.to_thread(control.upkeep.storage)
    return RegistryView(storage=storage, uses=await asyncio.to_thread(control.room.uses))


async def collect(ask: Ask, control: Control) -> Job:
    """Start deleting what no version needs, and packing what nobody uses."""
    body = ask.read(CollectBody)
    return start_collect(control, plan=body.plan, pack_after=body.pack_after)


async def verify(_ask: Ask, control: Control) -> Job:
    """Start reading the bytes of all versions again."""
    return start_verify_all(control)
