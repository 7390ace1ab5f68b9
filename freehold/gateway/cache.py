"""Whole answers kept for calls that say the same again, where a deployment asks for it.

An answer is found by one digest only: an HMAC of everything that shapes it, under a key made from
the home's secret and the tenant. Two tenants have two keys, so no request of one can name what was
kept for the other. Kept in this process's memory, the least lately used given up first.
"""

import asyncio
import hmac
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import msgspec

from freehold.gateway.wire.call import Call
from freehold.store.snapshot import Route

_encode = msgspec.json.encode

OVERHEAD = 512
"""Bytes counted for an entry beside its answer."""

PATIENCE = 10.0
"""Seconds a call waits for another that says the same and is under way."""

RANDOM_SEEDS = (-1, 2**32 - 1)
"""Seeds that engines take for "any"."""

_NOT_SAID = ("model", "stream", "stream_options")
"""Fields that do not shape an answer: the deployment and the form are counted otherwise."""


class Kept(msgspec.Struct, frozen=True):
    """An answer: its JSON document, until when it is good, whether its counts are our estimate."""

    data: bytes
    until: float
    estimated: bool


class Cache:
    """Answers by digest, at most ``limit`` bytes of them. ``clock`` in seconds, any beginning."""

    def __init__(self, secret: bytes, limit: int, clock: Callable[[], float]) -> None:
        self._root = hmac.digest(secret, b"freehold: answers kept for tenants", "sha256")
        self._limit = limit
        self._clock = clock
        self._kept: dict[bytes, Kept] = {}
        self._flights: dict[bytes, asyncio.Event] = {}
        self.bytes = 0

    def digest(self, tenant: str, dialect: str, call: Call, route: Route) -> bytes:
        """Return what an answer to this call of this tenant is kept under."""
        own = hmac.digest(self._root, tenant.encode("utf-8", "surrogatepass"), "sha256")
        said = [[name, call.fields[name]] for name in sorted(call.fields) if name not in _NOT_SAID]
        place = [route.deployment, route.model, route.version, route.digest, route.setup]
        return hmac.digest(own, _encode([dialect, call.task, call.path, place, said]), "sha256")

    def get(self, digest: bytes) -> Kept | None:
        """Return what is kept and still good."""
        kept = self._kept.pop(digest, None)
        if kept is None:
            return None
        if kept.until <= self._clock():
            self.bytes -= len(kept.data) + OVERHEAD
            return None
        self._kept[digest] = kept
        return kept

    def put(self, digest: bytes, data: bytes, seconds: float, *, estimated: bool) -> None:
        """Keep an answer for so long; one over the whole limit is not kept."""
        old = self._kept.pop(digest, None)
        if old is not None:
            self.bytes -= len(old.data) + OVERHEAD
        size = len(data) + OVERHEAD
        if size > self._limit:
            return
        self._kept[digest] = Kept(data, self._clock() + seconds, estimated)
        self.bytes += size
        while self.bytes > self._limit:
            first = next(iter(self._kept))
            self.bytes -= len(self._kept.pop(first).data) + OVERHEAD

    async def find(self, digest: bytes, patience: float = PATIENCE) -> Kept | None:
        """Return what is kept; within ``patience`` seconds also what another call is about to."""
        kept, flight = self.get(digest), self._flights.get(digest)
        if kept is None and flight is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(flight.wait(), min(patience, PATIENCE))
            kept = self.get(digest)
        return kept

    @contextmanager
    def flight(self, digest: bytes) -> Iterator[None]:
        """Let calls that say the same wait, while the block runs, for what comes of this one."""
        if digest in self._flights:
            yield
            return
        flight = self._flights[digest] = asyncio.Event()
        try:
            yield
        finally:
            del self._flights[digest]
            flight.set()


def is_repeatable(call: Call) -> bool:
    """Say whether the answer is a function of the request: greedy, seeded, or an embedding."""
    if call.task == "embedding":
        return True
    seed = _value(call.fields, "seed")
    return _value(call.fields, "temperature") == 0 or (
        seed is not None and seed not in RANDOM_SEEDS
    )


def control(header: str | None) -> tuple[bool, bool]:
    """Return whether a ``Cache-Control`` lets an answer be taken from a cache, and be kept."""
    words = {word.strip().lower() for word in (header or "").split(",")}
    keeps = "no-store" not in words
    return keeps and not words & {"no-cache", "max-age=0"}, keeps


def _value(fields: Mapping[str, Any], name: str) -> Any:
    raw = fields.get(name)
    return None if raw is None else msgspec.json.decode(raw)
