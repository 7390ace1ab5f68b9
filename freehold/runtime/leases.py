"""Leases: which requests of this process run on which replica, so none is unloaded under them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from freehold.store.snapshot import Target


class Leases:
    """Counts requests by replica. Used from one event loop."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.inflight: dict[str, int] = {}
        self.used: dict[str, float] = {}
        self._clock = clock

    @contextmanager
    def hold(self, target: Target) -> Iterator[None]:
        """Count one request on the target's replica for as long as the block runs."""
        replica = target.replica
        self.inflight[replica] = self.inflight.get(replica, 0) + 1
        self.used[replica] = self._clock()
        try:
            yield
        finally:
            self.used[replica] = self._clock()
            self.inflight[replica] -= 1
            if not self.inflight[replica]:
                del self.inflight[replica]

    def by_load(self, targets: Sequence[Target]) -> list[Target]:
        """Return the targets, least busy first; equal ones rotate by last use."""
        return sorted(
            targets,
            key=lambda target: (
                self.inflight.get(target.replica, 0),
                self.used.get(target.replica, 0.0),
            ),
        )

    def forget(self, known: set[str]) -> None:
        """Drop what is remembered of replicas that are no more."""
        for replica in [name for name in self.used if name not in known]:
            if replica not in self.inflight:
                del self.used[replica]
