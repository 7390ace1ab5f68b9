"""The deadlines of one attempt: end the wait for the engine when one of them passes."""

import asyncio
from typing import Protocol

from freehold.errors import TooSlow
from freehold.store.snapshot import Deadlines

CLOSING = 2.0
"""Seconds an engine may take, after an answer is whole, to say what it counted."""

TOTAL = "unavailable.total_deadline"


class Waited(Protocol):
    """What is waited for: a connection with an answer under way."""

    @property
    def waits(self) -> bool:
        """Whether somebody waits for the engine; nobody does while the client is slow."""
        ...

    @property
    def headed(self) -> bool:
        """Whether the engine has begun to answer."""
        ...

    def fail(self, error: Exception) -> None:
        """End the wait with an error."""
        ...


class Watch:
    """Counts from now. ``end`` is when the whole request must be over, in the loop's time.

    An alarm: a deadline costs a few stores, and passes a moment late. It also ends a wait that
    begins after it has passed.
    """

    def __init__(self, limits: Deadlines, end: float, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.limits = limits
        self.on: Waited | None = None
        self._begun = self._loop.time()
        self._end = end
        self._due, self._stage, self._limit = 0.0, "", 0.0
        self._until("headers", self._begun + limits.headers, limits.headers)

    @property
    def left(self) -> float:
        """Seconds until the present deadline."""
        return self._due - self._loop.time()

    def streaming(self) -> None:
        """The engine has begun to stream: its first token is next."""
        limit = self.limits.first_token
        self._until("first_token", self._begun + limit, limit)

    def progressed(self) -> None:
        """There was a token; ``TooSlow`` when the whole request must be over by now."""
        now = self._loop.time()
        self._until("token", now + self.limits.token, self.limits.token)
        if now >= self._end:  # an engine that never lets anybody wait has no end otherwise
            raise self.late()

    def closing(self) -> None:
        """The answer is whole: all that may still come are counts."""
        limit = min(CLOSING, self.limits.token)
        self._until("token", self._loop.time() + limit, limit)

    def ring(self, now: float) -> None:
        """End the wait that is under way when its time is over."""
        if now < self._due or self.on is None or not self.on.waits:
            return
        if self._stage == "headers" and self.on.headed:
            self._filling(now)
        if now >= self._due:
            self.on.fail(self.late())

    def late(self) -> TooSlow:
        """Return what to say when the present deadline has passed."""
        return too_slow(self._stage, self._limit)

    def _filling(self, now: float) -> None:
        """A document has begun to come in time: its rest comes soon."""
        self._until("token", now + self.limits.token, self.limits.token)

    def _until(self, stage: str, due: float, limit: float) -> None:
        if due > self._end:
            stage, due, limit = "total", self._end, self._end - self._begun
        self._due, self._stage, self._limit = due, stage, limit


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
