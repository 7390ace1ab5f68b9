"""The beat of control: acts that are done again and again, each guarded on its own."""

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from freehold.errors import FreeholdError

SAID_AGAIN_AFTER = 60.0
"""Seconds after which the same complaint of an act is worth a line of the log again."""

Act = Callable[[], Awaitable[None] | None]
_log = logging.getLogger("freehold.control")


async def keep(name: str, act: Act, every: float, stop: asyncio.Event) -> None:
    """Do an act every so many seconds until ``stop``; whatever it raises is logged, and tried anew.

    Deliberately without a list of errors: an act meets plugins, disks, files that anybody writes
    and what endpoints answer, and no single one of them may end a house that serves. What failed
    is tried again at the next beat, from the durable state.
    """
    said: dict[str, float] = {}
    while not stop.is_set():
        try:
            done = act()
            if inspect.isawaitable(done):
                await done
        except Exception as error:  # noqa: BLE001 - see above
            _complain(name, error, said)
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), every)


def _complain(name: str, error: Exception, said: dict[str, float]) -> None:
    text = f"{type(error).__name__}: {error}"[:300]
    now = time.monotonic()
    if now - said.get(text, -SAID_AGAIN_AFTER) < SAID_AGAIN_AFTER:
        return
    if len(said) > 100:
        said.clear()
    said[text] = now
    # Where it was raised says nothing of a full disk; of what nobody has foreseen it says much.
    foreseen = isinstance(error, (FreeholdError, OSError))
    _log.error("%s failed and is tried again: %s", name, text, exc_info=None if foreseen else error)
