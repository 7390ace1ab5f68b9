"""Whom to ask next: every replica once, best first; then, after a pause, those worth it again."""

import asyncio
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress

from freehold.errors import FreeholdError, Invalid
from freehold.gateway.blame import ENDPOINT
from freehold.gateway.exchange import Exchange
from freehold.gateway.parts import Parts
from freehold.gateway.retry import again, pause
from freehold.gateway.wire.call import Call
from freehold.routing.choose import Choice, choose
from freehold.store.snapshot import Route, Target

EARLY = 0.005
"""Seconds by which timers may fire early."""

Lead = tuple[Route, Target]
Fits = Callable[[Route, Target], bool]


class Leads:
    """The order in which one call's replicas are asked. ``end`` is in the loop's time.

    Circuits that are open come last, and are asked only when nobody else is left.
    """

    def __init__(
        self, call: Call, choices: Sequence[Choice], exchange: Exchange, parts: Parts
    ) -> None:
        self._call = call
        self._parts = parts
        self._loop = parts.alarms.loop
        self._choices: Sequence[Choice] | None = choices
        self.first = choices[0].route
        asked = seconds(exchange, "x-freehold-timeout")
        total = self.first.deadlines.total
        self.total = total if asked is None else min(asked, total)
        now = self._loop.time()
        self.end = now + self.total
        limit = parts.settings.runtime.wait_limit
        self._patient_until = now + _patience(exchange.header("prefer"), limit)
        self._asked = False
        self._tried: set[Target] = set()
        self._waits: dict[Target, float] = {}
        self._over: set[str] = set()
        self._round = 0

    @property
    def left(self) -> float:
        """Seconds until the whole request must be over."""
        return self.end - self._loop.time()

    async def next(self, fits: Fits) -> Lead | None:
        """Return whom to ask, waiting where that may help; None when there is nobody."""
        if not self._asked and self.first.state == "idle":
            await self._parts.follower.wake(self.first.deployment)
        while True:
            found = self.ready(fits) or self._last_resort(fits)
            if found is not None:
                self._asked = True
                return found
            if not await self._wait():
                return None

    def ready(self, fits: Fits) -> Lead | None:
        """Return one whose circuit is closed, or who is to be probed; waits for nobody."""
        circuits = self._parts.circuits
        for route, target in self._untried(fits):
            if circuits.admits(target.replica, target.url):
                self._tried.add(target)
                return route, target
        return None

    def none(self, fits: Fits) -> bool:
        """Say whether there are replicas, and not one of them fits, tried or not."""
        leads = [(c.route, target) for c in self._choose() for target in c.route.targets]
        return bool(leads) and not any(fits(*lead) for lead in leads)

    def failed(self, target: Target, error: FreeholdError) -> None:
        """Note that a replica could not answer."""
        wait = again(error)
        if wait is not None:
            self._waits[target] = wait

    def retry(self, target: Target) -> None:
        """Let a replica be asked again at once."""
        self._tried.discard(target)

    def pass_over(self, route: Route) -> None:
        """Note that a deployment is over a limit of its own: another round may find it within."""
        self._over.add(route.deployment)

    def _last_resort(self, fits: Fits) -> Lead | None:
        if self._round:
            return None
        found = next(self._untried(fits), None)
        if found is not None:
            self._tried.add(found[1])
        return found

    def _untried(self, fits: Fits) -> Iterator[Lead]:
        for choice in self._choose():
            route = choice.route
            if route.deployment in self._over:
                continue
            for target in self._parts.dispatch.order(self._call, route.targets):
                if target not in self._tried and fits(route, target):
                    yield route, target

    def _choose(self) -> Sequence[Choice]:
        """Return who may answer, best first: as it was when the call came, then as it is now."""
        found, self._choices = self._choices, None
        if found is not None:
            return found
        call = self._call
        return choose(call.model, call.task, call.tokens, self._parts.follower.snapshot.routes)

    async def _wait(self) -> bool:
        """Wait for a replica that may answer; say whether there may be one."""
        if not self._asked:
            await self._loaded(())
            return True
        runtime = self._parts.settings.runtime
        if self._waits and self._round < runtime.retries:
            delay = pause(self._round, list(self._waits.values()), random.random())  # noqa: S311
            if delay <= runtime.retry_wait and self._loop.time() + delay < self.end:
                await asyncio.sleep(delay + EARLY)
                self._tried -= self._waits.keys()
                self._waits.clear()
                self._over.clear()
                self._round += 1
                return True
        runs_here = any(choice.route.engine != ENDPOINT for choice in self._choose())
        if runs_here and self._loop.time() < min(self._patient_until, self.end):
            # Those that are there have failed, or their circuits are open: only a new one may do.
            present = [target for choice in self._choose() for target in choice.route.targets]
            with suppress(FreeholdError):
                await self._loaded([*present, *self._tried])
                return True
        return False

    async def _loaded(self, but: Collection[Target]) -> None:
        left = min(self._patient_until, self.end) - self._loop.time()
        await self._parts.follower.until_ready(self.first.deployment, but, left)


def seconds(exchange: Exchange, name: str) -> float | None:
    """Read a header that holds a positive number."""
    text = exchange.header(name)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise Invalid("invalid.header", f"{name} must be a positive number", param=name)
    return value


def _patience(prefer: str | None, limit: float) -> float:
    """Read ``Prefer: wait=SECONDS`` (RFC 7240): how long the client would wait for a load."""
    if prefer is None:
        return 0.0
    for part in prefer.split(","):
        name, _, value = part.strip().partition("=")
        if name.lower() == "wait" and value.strip('"').isdigit():
            return min(float(value.strip('"')), limit)
    return 0.0
