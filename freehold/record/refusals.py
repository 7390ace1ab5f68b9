"""Refusals of callers nobody knows: some are recorded one by one, the others by their number.

A record costs a durable write. Whoever has no key must not be able to have that done without bound.
"""

import time
from collections.abc import Callable

MOST = 20
"""Records in a second, for each process."""
WINDOW = 1.0


class Refusals:
    """Counts what is recorded in the present second, and what is not any more."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = 0.0
        self._recorded = 0
        self._left = 0

    def admit(self) -> bool:
        """Say whether one more is recorded by itself; if not, ``take`` counts it."""
        now = self._clock()
        if now - self._began >= WINDOW:
            self._began, self._recorded = now, 0
        self._recorded += 1
        if self._recorded <= MOST:
            return True
        self._left += 1
        return False

    @property
    def left(self) -> int:
        """How many were not recorded by themselves since ``take``."""
        return self._left

    def take(self) -> int:
        """Return how many were not recorded by themselves, and begin anew."""
        left, self._left = self._left, 0
        return left
