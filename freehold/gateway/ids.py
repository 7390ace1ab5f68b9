"""Random ids: unguessable, fetched from the system many at a time."""

import os
import time

_FETCH = 4096


class Ids:
    """For one process; a fork of it would draw the same."""

    def __init__(self) -> None:
        self._hex = ""
        self._at = 0

    def draw(self, digits: int) -> str:
        """Return so many random hex digits, at most a few dozen."""
        begin, end = self._at, self._at + digits
        if end > len(self._hex):
            self._hex, begin, end = os.urandom(_FETCH).hex(), 0, digits
        self._at = end
        return self._hex[begin:end]

    def request(self) -> str:
        """Return a request id: sortable by time, unguessable in its second half."""
        return f"req-{time.time_ns() // 1_000_000:011x}{self.draw(16)}"
