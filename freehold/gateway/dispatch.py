"""Bring calls to replicas: puts what is known of both before ``routing/balance``."""

import zlib
from collections.abc import Callable, Iterable, Sequence

from freehold.errors import Busy, EngineLost, TooSlow
from freehold.gateway.wire.call import Call
from freehold.routing.balance import BYTES_A_TOKEN, Standing, expected_answer, rank, work
from freehold.routing.prefix import LONGEST, chain, common
from freehold.runtime.caches import Cache
from freehold.runtime.leases import Leases
from freehold.store.marks import Marks
from freehold.store.snapshot import Target


def never(_target: Target) -> bool:
    """No circuit is open."""
    return False


class Held:
    """A call that runs on a replica. Once it has ended well, its prompt is known there."""

    def __init__(
        self, leases: Leases, target: Target, amount: int, links: Sequence[int], cache: Cache
    ) -> None:
        self._leases = leases
        self._target = target
        self._amount = amount
        self._links = links
        self._cache = cache

    def end(self, error: BaseException | None) -> None:
        """Count it no more; ``error`` is what it ended with."""
        self._leases.give(self._target, self._amount)
        if error is None:
            self._cache.end(self._links)
        elif isinstance(error, (Busy, EngineLost, TooSlow)):
            self._cache.drop(self._links)


class Dispatch:
    """Orders the replicas of a deployment for a call and keeps count of what runs where.

    ``marks`` hold what replicas have read, under hashes that begin with ``seed``. ``is_open`` says
    which replicas a circuit breaker wants left alone.
    """

    def __init__(
        self,
        leases: Leases,
        marks: Marks,
        seed: int = 0,
        is_open: Callable[[Target], bool] = never,
    ) -> None:
        self._leases = leases
        self._marks = marks
        self._seed = seed
        self._is_open = is_open

    def order(self, call: Call, targets: Iterable[Target]) -> list[Target]:
        """Return the targets worth asking, best first; none where every circuit is open."""
        targets = tuple(targets)
        if len(targets) <= 1:
            return [target for target in targets if not self._is_open(target)]
        links = self._links(call)
        standings = [self._standing(target, links) for target in targets]
        return rank(call.prompt, standings, self._is_open)

    def take(self, call: Call, deployment: str, target: Target) -> "Held":
        """Count the call as the replica's until what is returned ends."""
        links, cache = self._links(call), Cache(self._marks, target)
        known, reading = _read(links, cache)
        cache.begin(links)
        answer = 0.0
        if call.streams:
            limit = max(0, call.tokens - call.prompt)
            mean = self._leases.mean_answer(deployment)
            answer = expected_answer(mean, limit, call.choices * call.prompts)
        amount = work(call.prompt, known + reading, answer)
        self._leases.take(target, amount)
        return Held(self._leases, target, amount, links, cache)

    def learn(self, deployment: str | None, tokens: int) -> None:
        """Take the tokens of a whole answer into what is expected of the next."""
        if deployment is not None and tokens:
            self._leases.learn(deployment, tokens)

    def _standing(self, target: Target, links: Sequence[int]) -> Standing:
        known, reading = _read(links, Cache(self._marks, target))
        work, used = self._leases.work(target), self._leases.last_used(target)
        return Standing(target, work, known, reading, used)

    def _links(self, call: Call) -> tuple[int, ...]:
        # The client's own bytes serve as well as rendered ones, and need no rendering.
        text = call.fields.get("messages", call.fields.get("prompt"))
        if text is None or call.task == "embedding":
            return ()
        seed, tools = self._seed, call.fields.get("tools")
        if tools is not None:  # templates render them before all messages
            seed = hash((seed, zlib.crc32(tools)))
        return chain(seed, bytes(memoryview(text)[:LONGEST]))


def _read(links: Sequence[int], cache: Cache) -> tuple[float, float]:
    """Return the tokens of the beginning that were read, and those after that being read."""
    known = common(links, cache.has_read) / BYTES_A_TOKEN
    return known, max(0.0, common(links, cache.is_reading) / BYTES_A_TOKEN - known)
