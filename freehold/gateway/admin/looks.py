"""Whose look at what is on record already: to follow long work is one act, not hundreds."""

from collections.abc import Callable

from freehold.record.entry import Entry

AGAIN_WITHIN = 60.0
"""Seconds: who asks again sooner follows; who comes back later looks anew."""
MOST_KNOWN = 1000


class Looks:
    """The last look of each key at each thing that it follows. ``clock`` is in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[tuple[str | None, str | None, str | None], float] = {}

    def again(self, entry: Entry) -> bool:
        """Say whether a look follows one that is on record; what was refused never does."""
        who = (entry.principal, entry.key, entry.subject)
        last, now = self._known.get(who), self._clock()
        if entry.outcome != "ok" or last is None or not 0 <= now - last < AGAIN_WITHIN:
            return False
        self._known[who] = now
        return True

    def recorded(self, entry: Entry) -> None:
        """Remember a look that is on record now."""
        if entry.outcome == "ok":
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[entry.principal, entry.key, entry.subject] = self._clock()
