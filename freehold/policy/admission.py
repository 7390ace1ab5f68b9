"""Let requests to engines in fair turn: as many at once as they have slots, over all gateways.

Gateways share, through cells, how many requests run on a deployment, the tag at the head of each
one's line, and the virtual time. A gateway lets its head go when there is a slot and no other
gateway's head comes first.
"""

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec

from freehold.errors import FreeholdError, NoCapacity, OverQuota
from freehold.policy.cells import RING, Cells
from freehold.policy.line import SHARE, Line, expected, goes, tag, victim
from freehold.settings import Quotas
from freehold.store.snapshot import Route

BEAT = 0.003
PATIENCE = 0.05
"""Seconds that another gateway's head may hold ours up while there is a slot: it may hang."""
_RUNNING, _HEAD = 0, 1
_SMOOTHING = 0.1


class Place(msgspec.Struct):
    """What one request has: a slot of a deployment, since when."""

    deployment: str
    since: float


class Ward:
    """One deployment's line in this gateway, and the cells it shares."""

    def __init__(self, cells: Cells, deployment: str) -> None:
        self.line: Line[asyncio.Future[None]] = Line()
        self.slots: int | None = None
        self.seconds = 0.0
        self.cells = cells.shared(f"line:{deployment}")
        self.virtual = cells.view(f"line:{deployment}")[1]
        self.own = cells.slot * RING
        self.pump: asyncio.Task[None] | None = None

    def running(self) -> int:
        """Return how many requests run, over all gateways."""
        return sum(self.cells[_RUNNING::RING])

    def others(self) -> list[int]:
        """Return the tags at the heads of other gateways' lines."""
        heads = list(self.cells[_HEAD::RING])
        return [head for slot, head in enumerate(heads) if head and slot * RING != self.own]

    def show_head(self) -> None:
        """Let the other gateways see who waits first here."""
        self.cells[self.own + _HEAD] = self.line.head()


class Admission:
    """The doors to all deployments, in one gateway. Used from one event loop."""

    def __init__(self, cells: Cells, settings: Quotas, recover: Callable[[], None]) -> None:
        self._cells = cells
        self._settings = settings
        self._recover = recover
        self._wards: dict[str, Ward] = {}
        self._places: dict[str, Place] = {}

    @property
    def inside(self) -> int:
        """How many requests have a place at an engine, or wait for one."""
        return len(self._places) + sum(len(ward.line) for ward in self._wards.values())

    async def enter(
        self, request: str, tenant: str, route: Route, patience: float = math.inf
    ) -> None:
        """Return when the request may go to the deployment; it holds a slot until ``leave``.

        Not to be called again for a request that waits. It waits ``patience`` seconds at most.
        ``OverQuota`` when its tenant has more than its share of a full line, ``NoCapacity`` when
        the line is full or too slow.
        """
        held = self._places.get(request)
        if held is not None and held.deployment == route.deployment:
            return
        self.leave(request)
        if route.slots is None:  # nobody knows how many it takes: nobody waits
            return
        ward = self._ward(route.deployment)
        ward.slots = route.slots
        await self._turn(ward, tenant, route, min(patience, self._settings.longest_wait))
        self._places[request] = Place(route.deployment, time.monotonic())

    def leave(self, request: str) -> None:
        """Give the request's slot back."""
        place = self._places.pop(request, None)
        if place is None:
            return
        ward = self._wards[place.deployment]
        took = time.monotonic() - place.since
        ward.seconds += (took - ward.seconds) * (_SMOOTHING if ward.seconds else 1.0)
        ward.cells[ward.own + _RUNNING] -= 1  # nobody else writes there: it needs no lock
        if ward.line.waiting:
            with suppress(FreeholdError), self._cells.lock():  # else the next look at the line does
                _let_go(ward, hurry=False)

    async def close(self) -> None:
        """Stop looking after lines."""
        for ward in self._wards.values():
            if ward.pump is not None:
                ward.pump.cancel()

    async def _turn(self, ward: Ward, tenant: str, route: Route, longest: float) -> None:
        last = self._cells.view(f"line:{route.deployment}:{tenant}")[1]
        weight = self._settings.weights.get(tenant, 1)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._cells.lock():
            tagged = tag(ward.virtual[0], last[0], weight)
            if not ward.line.waiting and goes(tagged, ward.others(), ward.running(), ward.slots):
                last[0] = tagged
                _start(ward, tagged)
                return
        number = self._join(ward, tenant, tagged, turn, longest)
        last[0] = tagged
        if ward.pump is None or ward.pump.done():
            ward.pump = asyncio.create_task(self._look_after(ward))
        await self._wait(ward, number, turn, longest)

    def _join(
        self, ward: Ward, tenant: str, tagged: int, turn: "asyncio.Future[None]", longest: float
    ) -> int:
        wait = expected(len(ward.line) + 1, ward.slots or 1, ward.seconds)
        if wait > longest:
            raise _busy(min(wait, self._settings.longest_wait))
        if len(ward.line) >= self._settings.line:
            loser = victim(ward.line.waiting, tenant)
            alone = set(ward.line.waiting) <= {tenant}
            if loser == tenant:
                raise _busy(max(1.0, wait)) if alone else _over_share(max(1.0, wait))
            found = ward.line.last_of(loser)
            if found is not None:
                ward.line.leave(found[0])
                if not found[1].done():
                    found[1].set_exception(_over_share(max(1.0, wait)))
        return ward.line.join(tenant, tagged, turn)

    async def _wait(
        self, ward: Ward, number: int, turn: "asyncio.Future[None]", longest: float
    ) -> None:
        try:
            async with asyncio.timeout(longest):
                await turn
        except TimeoutError as error:
            self._give_up(ward, number, turn)
            raise _busy(max(1.0, ward.seconds)) from error
        except asyncio.CancelledError:
            self._give_up(ward, number, turn)
            raise

    def _give_up(self, ward: Ward, number: int, turn: "asyncio.Future[None]") -> None:
        ward.line.leave(number)
        if turn.done() and not turn.cancelled() and turn.exception() is None:
            ward.cells[ward.own + _RUNNING] -= 1  # its slot came at the same moment

    async def _look_after(self, ward: Ward) -> None:
        free_since, looked = 0.0, 0.0
        while ward.line.waiting:
            now = time.monotonic()
            try:
                with self._cells.lock():
                    gone = _let_go(ward, hurry=bool(free_since) and now - free_since > PATIENCE)
                    free = ward.slots is None or ward.running() < ward.slots
                if gone or not free:
                    free_since = 0.0
                elif not free_since:
                    free_since = now
                if now - looked > PATIENCE:
                    self._recover()
                    looked = now
            except FreeholdError:
                free_since = 0.0
            await asyncio.sleep(BEAT)
        with self._cells.lock():
            ward.show_head()

    def _ward(self, deployment: str) -> Ward:
        found = self._wards.get(deployment)
        if found is None:
            found = self._wards[deployment] = Ward(self._cells, deployment)
        return found


def _let_go(ward: Ward, *, hurry: bool) -> int:
    """Let heads go as long as they may; while holding the lock. Return how many went."""
    gone = 0
    while head := ward.line.head():
        others = [] if hurry else ward.others()
        if not goes(head, others, ward.running(), ward.slots):
            break
        turn = ward.line.pop()
        if not turn.done():
            _start(ward, head)
            turn.set_result(None)
            gone += 1
    ward.show_head()
    return gone


def _start(ward: Ward, tagged: int) -> None:
    ward.cells[ward.own + _RUNNING] += 1
    ward.virtual[0] = max(ward.virtual[0], tagged - SHARE)


def _busy(wait: float) -> NoCapacity:
    text = "all engines of the deployment are busy and the line is full or too slow: try again"
    return NoCapacity("unavailable.busy", text, retry_after=wait)


def _over_share(wait: float) -> OverQuota:
    text = "the engines are busy and most of those in line are yours: send fewer at once"
    return OverQuota("quota.share", text, retry_after=wait)
