"""The line before a deployment whose engines are full, fair between tenants. Pure: no I/O.

Weighted fair queueing by virtual finish time: a tenant's next request is tagged one share behind
its last, or behind what runs now where it asked for nothing lately; the smallest tag goes first. So
who sends a thousand requests waits behind its own, not in front of everybody else's.
"""

import heapq
from collections import Counter
from collections.abc import Mapping
from typing import Generic, TypeVar

SHARE = 1_000_000
"""What a request of weight 1 moves its tenant on by, in virtual time."""

T = TypeVar("T")


def tag(virtual: int, last: int, weight: int) -> int:
    """Return the virtual finish of a tenant's next request; never 0."""
    return max(virtual, last) + max(1, SHARE // weight)


def goes(head: int, others: list[int], running: int, slots: int | None) -> bool:
    """Say whether the head of a gateway's line may go, given the heads of the others' lines."""
    if slots is None:
        return True
    return running < slots and all(other >= head for other in others)


def victim(waiting: Mapping[str, int], newcomer: str) -> str:
    """Return whose request is shed when the line is full: whoever has most in it."""
    counts = Counter(waiting)
    counts[newcomer] += 1
    return max(counts, key=lambda tenant: (counts[tenant], tenant == newcomer))


def expected(ahead: int, slots: int, seconds: float) -> float:
    """Return how long a request will wait behind so many that take so many seconds each."""
    return ahead * seconds / max(1, slots)


class Line(Generic[T]):
    """Who waits, in the order of tags."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, str, T]] = []
        self._gone: set[int] = set()
        self._count = 0
        self.waiting: Counter[str] = Counter()

    def __len__(self) -> int:
        return sum(self.waiting.values())

    def join(self, tenant: str, tagged: int, item: T) -> int:
        """Stand in line; return a number to leave by."""
        self._count += 1
        heapq.heappush(self._heap, (tagged, self._count, tenant, item))
        self.waiting[tenant] += 1
        return self._count

    def head(self) -> int:
        """Return the smallest tag, 0 when nobody waits."""
        while self._heap and self._heap[0][1] in self._gone:
            self._gone.discard(heapq.heappop(self._heap)[1])
        return self._heap[0][0] if self._heap else 0

    def pop(self) -> T:
        """Take the head out of a line in which somebody waits."""
        self.head()
        _, _, tenant, item = heapq.heappop(self._heap)
        self._forget(tenant)
        return item

    def leave(self, number: int) -> None:
        """Step out of the line; nothing when not in it any more."""
        found = next((each for each in self._heap if each[1] == number), None)
        if found is not None and number not in self._gone:
            self._gone.add(number)
            self._forget(found[2])

    def last_of(self, tenant: str) -> tuple[int, T] | None:
        """Return (number, item) of a tenant's last request in line."""
        own = [each for each in self._heap if each[2] == tenant and each[1] not in self._gone]
        found = max(own, default=None, key=lambda each: each[:2])
        return None if found is None else (found[1], found[3])

    def _forget(self, tenant: str) -> None:
        self.waiting[tenant] -= 1
        if not self.waiting[tenant]:
            del self.waiting[tenant]
