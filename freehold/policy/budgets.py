"""Reserve before, settle after: what a gateway does to the shared numbers for each request."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from freehold.errors import FreeholdError, OverQuota, Unavailable
from freehold.identity.keys import Principal
from freehold.policy.cells import CLOSED, LOST, Cells, Counter
from freehold.policy.plans import Limits, Plan, Plans
from freehold.policy.quotas import (
    MEASURES,
    Amounts,
    Size,
    Standing,
    decide,
    is_elsewhere_free,
    mildest,
    most,
)
from freehold.policy.settle import recover, settle, take_slot, writes
from freehold.record.cost import cost, subjects
from freehold.record.entry import Entry
from freehold.store.snapshot import Route

Held = tuple[Counter, int, int, int]
"""(cells, place of the window, its number, amount)."""


class Reservation(msgspec.Struct, kw_only=True):
    """What one running request holds. ``standings`` are the limits as it met them.

    ``refusal`` is why the deployment asked for may not answer, where another one does.
    """

    entry: Entry
    principal: Principal
    size: Size
    route: Route
    held: list[Held] = []
    standings: list[Standing] = []
    refusal: OverQuota | None = None


class Budgets:
    """The budgets as one gateway sees them. Used from one event loop."""

    def __init__(
        self, cells: Cells, audit: Path, clock: Callable[[], float], unstated: int
    ) -> None:
        self.plans = Plans(cells)
        self._cells = cells
        self._audit = audit
        self._clock = clock
        self._unstated = unstated
        self._running: dict[str, Reservation] = {}
        self._unsettled: deque[tuple[Entry, Reservation, str, int]] = deque()

    @property
    def held(self) -> int:
        """How many requests hold something, or are not settled yet."""
        return len(self._running) + len(self._unsettled)

    async def begin(self) -> None:
        """Take this process's slot, once whoever had it before has ended and is settled."""
        life = time.time_ns()
        while True:
            if take_slot(self._cells, self._audit, self.plans.charges, life):
                return
            await asyncio.sleep(0.01)

    def reserve(
        self,
        principal: Principal,
        size: Size,
        entry: Entry,
        routes: Sequence[Route],
        limits: Limits,
    ) -> Reservation:
        """Hold the most the request may use of the first deployment that has room for it.

        ``OverQuota`` when the caller's own limits leave none, or those of all deployments.
        ``close`` says what became of it; ``settle`` gives it back.
        """
        self.plans.use(limits)
        made = Reservation(entry=entry, principal=principal, size=size, route=routes[0])
        entry.team, entry.admitted = principal.team, self._clock()
        try:
            self._take_first(made, routes)
        except BaseException:
            entry.admitted = None
            raise
        self._running[entry.id] = made
        return made

    def close(self, made: Reservation, *, failed: bool) -> None:
        """Say that the request is over: one that used nothing counts for nothing."""
        entry = made.entry
        if not entry.attempts or (failed and entry.first_token_ms is None):
            entry.admitted = None
        entry.cost = self._cost(made)

    def move(self, entry: Entry, route: Route) -> None:
        """Let another deployment answer, if its limits too leave room; else ``OverQuota``."""
        made = self._running[entry.id]
        if route.deployment != made.route.deployment:
            self._take(made, route)
            made.route = route

    def settle(self, written: Sequence[tuple[Entry, str, int]]) -> None:
        """Turn reservations into what durable records say; a journal ``""`` means there is none.

        Called in the order of the journal. What cannot be settled now is with the next.
        """
        for entry, journal, end in written:
            made = self._running.pop(entry.id, None)
            if made is not None:
                self._unsettled.append((entry, made, journal, end))
        if self._unsettled:
            with suppress(FreeholdError):
                self._settle()

    def recover(self) -> None:
        """Put right what dead gateways left."""
        recover(self._cells, self._audit, self.plans.charges)

    def _take_first(self, made: Reservation, routes: Sequence[Route]) -> None:
        refusals: list[OverQuota] = []
        for route in routes:
            try:
                self._take(made, route)
            except OverQuota as refusal:
                if not is_elsewhere_free(refusal):
                    raise
                refusals.append(refusal)
            else:
                made.route = route
                made.refusal = mildest(refusals) if refusals else None
                return
        raise mildest(refusals)

    def _take(self, made: Reservation, route: Route) -> None:
        key, name = made.principal.key, made.principal.name
        plan = self.plans.of(subjects(key, name, made.principal.team, route.deployment))
        if not plan and not made.held:
            return
        if not self._cells.ready:
            raise Unavailable(
                "unavailable.limits", "what was spent is being counted: try again", retry_after=1
            )
        want = most(made.size, route, self._unstated)
        recoveries = self._cells.recoveries
        refusal = self._try(made, plan, want)
        if refusal is not None:
            self.recover()
            if self._cells.recoveries != recoveries:
                refusal = self._try(made, plan, want)
        if refusal is not None:
            raise refusal

    def _try(self, made: Reservation, plan: Plan, want: Amounts) -> OverQuota | None:
        assert made.entry.admitted is not None
        numbers = self.plans.numbers(made.entry.admitted)
        with self._cells.lock():
            before, made.held = made.held, []
            if before:
                _hold(before, -1)
            held, standings = _look(plan, numbers, want)
            refusal = decide(standings, made.entry.admitted)
            made.held = held if refusal is None else before
            made.standings = standings
            _hold(made.held, 1)
        return refusal

    def _settle(self) -> None:
        due = [
            (self.plans.charges(entry), self._cells.view(f"journal:{journal}"))
            for entry, _, journal, _ in self._unsettled
        ]
        with self._cells.lock():
            for charges, (row, offset) in due:
                _, made, journal, end = self._unsettled[0]
                if journal:
                    settle(self._cells, charges, row, offset, end)
                else:  # used, though no record could be written: counted until the machine restarts
                    self._cells.write(writes(charges))
                _hold(made.held, -1)
                self._unsettled.popleft()

    def _cost(self, made: Reservation) -> int:
        entry, route = made.entry, made.route
        if entry.admitted is None:
            return 0
        return cost(route.price_in, route.price_out, entry.tokens_in, entry.tokens_out)


def _look(plan: Plan, numbers: Sequence[int], want: Amounts) -> tuple[list[Held], list[Standing]]:
    """Return what would be held and how the limits stand; while holding the lock."""
    held: list[Held] = []
    standings: list[Standing] = []
    for limit, counter in plan:
        number = numbers[counter.window]
        at, spent = 0, 0
        if limit.measure != "concurrency":
            at = counter.find(number)
            if at == CLOSED:  # set a moment ago: in force when its answer comes
                continue
            if at == LOST:
                raise Unavailable(
                    "unavailable.limits",
                    "the clock went back: what was spent then is being counted, try again",
                    retry_after=1,
                )
            spent = counter.spent[at + 1]
        amount = want[counter.measure]
        held.append((counter, at, number, amount))
        standings.append(Standing(limit, spent, counter.reserved(at), amount))
    return held, standings


def _hold(held: Sequence[Held], sign: int) -> None:
    """Take or give back what is held, where the window still has its place; with the lock."""
    for counter, at, number, amount in held:
        if counter.measure == _CONCURRENCY or counter.spent[at] == number:
            counter.hold(at, sign * amount)


_CONCURRENCY = MEASURES.index("concurrency")
