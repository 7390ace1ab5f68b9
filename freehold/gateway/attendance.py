"""Is the client still there, while its request is worked on?"""

import asyncio
from collections.abc import Awaitable, Callable

from freehold.gateway.alarm import Alarms

LOOK_AFTER = 0.02
"""Seconds before anybody looks: most requests that cost nothing to finish are over by then."""


class Attendance:
    """Cancels the task that made it once the client has hung up; ``left`` tells why.

    ``hang_up`` returns when that happens. ``end`` must be called when the work is over.
    """

    def __init__(self, hang_up: Callable[[], Awaitable[None]], alarms: Alarms) -> None:
        self.left = False
        self._task = alarms.task()
        self._over = False
        self._hang_up = hang_up
        self._alarms = alarms
        self._looking: asyncio.Future[None] | None = None
        self._since = alarms.now
        alarms.set(self)

    def leave(self) -> None:
        """Act as if the client had hung up."""
        if not self._over and not self.left:
            self.left = True
            self._task.cancel()

    def end(self) -> None:
        """Look no more."""
        self._over = True
        self._alarms.clear(self)
        if self._looking is not None:
            self._looking.cancel()

    def ring(self, now: float) -> None:
        """Begin to look, once the request has gone on for a while."""
        if now - self._since >= LOOK_AFTER:
            self._alarms.clear(self)
            self._looking = asyncio.ensure_future(self._hang_up())
            self._looking.add_done_callback(self._noticed)

    def _noticed(self, looking: asyncio.Future[None]) -> None:
        if not looking.cancelled() and looking.exception() is None:
            self.leave()
