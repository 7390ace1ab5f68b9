"""The deadlines of one attempt: end the wait that is under way when one of them passes.

One timer an attempt, moved only when it fires: a token costs a few stores, not a timer.
"""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from freehold.errors import TooSlow
from freehold.store.snapshot import Deadlines

T = TypeVar("T")

CLOSING = 2.0
"""Seconds an engine may take, after an answer is whole, to say what it counted."""

TOTAL = "unavailable.total_deadline"


class Watch:
    """Counts from now. ``end`` is when the whole request must be over, in the loop's time."""

    def __init__(self, limits: Deadlines, end: float) -> None:
        self._loop = asyncio.get_running_loop()
        self.limits = limits
        self._begun = self._loop.time()
        self._end = end
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._expired = False
        self._due, self._stage, self._limit = 0.0, "", 0.0
        self._until("headers", self._begun + limits.headers, limits.headers)

    def streaming(self) -> None:
        """The engine has begun to stream: its first token is next."""
        limit = self.limits.first_token
        self._until("first_token", self._begun + limit, limit)

    def filling(self) -> None:
        """The engine has begun to send a document: the rest comes soon, or in its time."""
        headers, token = self.limits.headers, self.limits.token
        if self._loop.time() + token > self._begun + headers:
            self._until("token", self._loop.time() + token, token)

    def progressed(self) -> None:
        """There was a token."""
        self._until("token", self._loop.time() + self.limits.token, self.limits.token)

    def closing(self) -> None:
        """The answer is whole: all that may still come are counts."""
        limit = min(CLOSING, self.limits.token)
        self._until("token", self._loop.time() + limit, limit)

    async def wait(self, awaitable: Awaitable[T]) -> T:
        """Wait for something of the engine; ``TooSlow`` says which deadline passed."""
        task = asyncio.current_task()
        assert task is not None
        already = task.cancelling()
        self._task = task
        if self._timer is None:
            self._timer = self._loop.call_at(self._due, self._tick)
        elif self._timer.when() > self._due:
            self._timer.cancel()
            self._timer = self._loop.call_at(self._due, self._tick)
        try:
            return await awaitable
        except asyncio.CancelledError:
            if self._expired and task.uncancel() <= already:
                raise self.late() from None
            raise
        finally:
            self._task = None

    def late(self) -> TooSlow:
        """Return what to say when the present deadline has passed."""
        return too_slow(self._stage, self._limit)

    def close(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()

    def _until(self, stage: str, due: float, limit: float) -> None:
        if due > self._end:
            stage, due, limit = "total", self._end, self._end - self._begun
        self._due, self._stage, self._limit = due, stage, limit

    def _tick(self) -> None:
        now = self._loop.time()
        if self._task is not None and now >= self._due:
            self._expired = True
            self._task.cancel()
            return
        # Nobody waits on the engine while the client is slow; the next wait looks again.
        self._timer = self._loop.call_at(self._due, self._tick) if now < self._due else None


def too_slow(stage: str, limit: float) -> TooSlow:
    """Return the error for a deadline; ``stage`` is its name, ``limit`` in seconds."""
    text = f"within {limit:.4g} s"
    match stage:
        case "connect":
            error = TooSlow("unavailable.connect_deadline", f"no connection to the engine {text}")
        case "headers":
            error = TooSlow("unavailable.headers_deadline", f"the engine did not answer {text}")
        case "first_token":
            error = TooSlow("unavailable.first_token_deadline", f"no first token {text}")
        case "token":
            error = TooSlow("unavailable.token_deadline", f"the engine stalled: no token {text}")
        case _:
            error = TooSlow("unavailable.total_deadline", f"no whole answer {text}")
    error.retry_after = 1
    error.details = {"deadline": stage, "seconds": round(limit, 3)}
    return error
