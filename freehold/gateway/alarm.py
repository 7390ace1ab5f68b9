"""Alarms: what must be looked at while requests run, by one timer of the process.

A timer of its own for every deadline would cost a request more than most of what it is for.
"""

import asyncio
from types import TracebackType
from typing import Protocol

BEAT = 0.02
"""Seconds between two looks: so much later than it says may a deadline pass."""


class Alarm(Protocol):
    """Something that wants to know what time it is."""

    def ring(self, now: float) -> None:
        """Look at the time, in the loop's seconds."""
        ...


class Alarms:
    """One for an event loop. An alarm that is set hears the time every ``BEAT`` seconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._alarms: set[Alarm] = set()
        self._timer: asyncio.TimerHandle | None = None

    def set(self, alarm: Alarm) -> None:
        """Begin to tell an alarm the time."""
        self._alarms.add(alarm)
        if self._timer is None:
            self._timer = self.loop.call_later(BEAT, self._ring)

    @property
    def now(self) -> float:
        """The loop's time, in seconds."""
        return self.loop.time()

    def task(self) -> "asyncio.Task[object]":
        """Return the task that runs now."""
        task = asyncio.current_task(self.loop)
        assert task is not None
        return task

    def clear(self, alarm: Alarm) -> None:
        """Tell it no more."""
        self._alarms.discard(alarm)

    def _ring(self) -> None:
        self._timer = None
        if not self._alarms:
            return
        self._timer = self.loop.call_later(BEAT, self._ring)
        now = self.loop.time()
        for alarm in tuple(self._alarms):
            alarm.ring(now)


class Deadline:
    """Ends a block of the present task with ``TimeoutError`` once it takes too long."""

    def __init__(self, alarms: Alarms, seconds: float) -> None:
        self.due = alarms.loop.time() + seconds
        self._alarms = alarms
        self._rang = False
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0

    def __enter__(self) -> "Deadline":
        self._task = self._alarms.task()
        self._cancelling = self._task.cancelling()
        self._alarms.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._alarms.clear(self)
        if self._rang and self._task is not None:
            alone = self._task.uncancel() <= self._cancelling
            if alone and kind is not None and issubclass(kind, asyncio.CancelledError):
                raise TimeoutError from error

    def ring(self, now: float) -> None:
        """Cancel the task when it is time."""
        if now >= self.due and not self._rang and self._task is not None:
            self._rang = True
            self._task.cancel()
