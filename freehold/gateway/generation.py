"""One call on its way through engines, until one has answered.

``stream`` yields chunks, ``whole`` returns one reply. Both end only with a whole answer: what an
engine breaks off, garbles or answers with an error is tried elsewhere or raised, never passed on.
A stream that broke off is continued by another replica, where that can be done so that nobody
could tell.
"""

import time
from collections.abc import AsyncGenerator, Coroutine, Sequence
from functools import partial
from typing import Any

import msgspec

from freehold.errors import Busy, EngineLost, FreeholdError, NoCapacity, TooSlow
from freehold.gateway.allowance import Spent
from freehold.gateway.attempt import Attempt, Blank
from freehold.gateway.blame import told
from freehold.gateway.exchange import Exchange
from freehold.gateway.faults import EngineFault
from freehold.gateway.hedge import hedged
from freehold.gateway.leads import Fits, Lead, Leads, seconds
from freehold.gateway.parts import Parts
from freehold.gateway.resume import Way, continuation, spent, way
from freehold.gateway.seam import Mismatch, Seam, differs
from freehold.gateway.transcript import Transcript, transcribe
from freehold.gateway.turn import Report, Turn
from freehold.gateway.watch import TOTAL, Watch, too_slow
from freehold.gateway.wire.call import Call
from freehold.gateway.wire.dialect import Chunk, Reply
from freehold.gateway.wire.usage import Tally
from freehold.policy.budgets import Reservation
from freehold.routing.choose import Choice
from freehold.store.snapshot import Route, Target

SETBACKS = (EngineLost, Busy, TooSlow)
"""What one replica could not do, another may."""

MOST_KEPT = 1 << 15
"""Events of a stream that are kept; one that is longer does not go on elsewhere."""

PROBE_PATIENCE = 2.0
"""Seconds after which a request that probes a suspicious replica asks another one too."""


class Generation:
    """What becomes of one call. ``tally`` is right at every moment, also when we break off."""

    def __init__(
        self,
        call: Call,
        choices: Sequence[Choice],
        allowed: Reservation,
        exchange: Exchange,
        parts: Parts,
    ) -> None:
        self._call = call
        self._parts = parts
        self._allowed = allowed
        self._entry = allowed.entry
        self._begun = time.perf_counter()
        # Those before the one that was allowed are over limits of their own.
        at = next(n for n, choice in enumerate(choices) if choice.route is allowed.route)
        self._leads = Leads(call, choices[at:], exchange, parts)
        self._hedge_ms = seconds(exchange, "x-freehold-hedge-ms") or self._leads.first.hedge_ms
        self._sent: list[Chunk] = []
        self._said: Transcript | None = None
        self._forgotten = False
        self._exact = True
        self._blank: Turn | None = None
        self._by: Attempt | None = None
        self.tally = Tally(call)

    @property
    def left(self) -> float:
        """Seconds until the answer must be over."""
        return self._leads.left

    async def whole(self) -> Reply:
        """Return the whole answer."""
        try:
            turn = await self._ask(stream=False)
            turn.end(self._parts.circuits.answered)
            assert isinstance(turn.piece, Reply)
            return turn.piece
        finally:
            self._count()

    async def stream(self) -> AsyncGenerator[list[Chunk], None]:
        """Yield the answer's chunks as they come; returns only once every choice has finished."""
        turn: Turn | None = None
        try:
            turn = await self._ask(stream=True)
            while turn is not None:
                assert isinstance(turn.piece, list)
                self._keep(turn.piece)
                yield turn.piece
                turn = await self._go_on(turn)
        finally:
            if turn is not None:
                self._drop(turn)
            self._count()

    async def _ask(self, *, stream: bool, lost: FreeholdError | None = None) -> Turn:
        """Ask one replica after the other until one has begun to answer.

        Where the deployment asked for is over its limit and no other answers, that is the reason.
        """
        try:
            return await self._ask_all(stream=stream, lost=lost)
        except (EngineLost, NoCapacity) as error:
            if self._allowed.refusal is None or self._sent:
                raise
            raise self._allowed.refusal from error

    async def _ask_all(self, *, stream: bool, lost: FreeholdError | None) -> Turn:
        while (lead := await self._next()) is not None:
            try:
                return await self._answer(lead, stream=stream)
            except SETBACKS as error:
                if error.code == TOTAL:
                    raise too_slow("total", self._leads.total) from error
                lost = told(error, lead[0])
            except Spent as error:
                self._leads.pass_over(lead[0])
                lost = lost or error.refusal
        if self._blank is None:
            raise lost or _nobody()
        self._credit(self._blank.attempt)
        return self._blank

    async def _go_on(self, turn: Turn) -> Turn | None:
        """Return the turn with its next piece, another replica's if need be; None at the end."""
        try:
            more = await turn.more()
        except SETBACKS as error:
            self._set_back(turn, error)
            if error.code == TOTAL:
                raise too_slow("total", self._leads.total) from error
            if (end := self._missing_end()) is not None:
                turn.piece = end
                return turn
            return await self._ask(stream=True, lost=error)
        except EngineFault as error:
            found = self._refused(turn, error)
            if isinstance(found, EngineFault):
                raise
            return await self._ask(stream=True, lost=found)
        if more:
            return turn
        turn.end(self._parts.circuits.answered)
        return None

    async def _next(self) -> Lead | None:
        """Return whom to ask now, None when there is nobody."""
        if self._blank is not None:  # a second opinion is worth a question, not a wait
            return self._leads.ready(self._beside(self._blank.attempt.route))
        if self._said is not None and self._leads.none(self._fits):
            return None
        return await self._leads.next(self._fits)

    async def _answer(self, lead: Lead, *, stream: bool) -> Turn:
        """Ask a replica; and another beside it, where that was wished for or seems wise."""
        route, target = lead
        try:
            # Once for both: who waits in line has not been asked yet, and takes one place there.
            await self._parts.allowances.answer_by(self._entry, route, self._leads.left)
        except BaseException:
            self._parts.circuits.dropped(target.replica, target.url)  # it may be a probe
            raise
        delay = None if self._hedge_ms is None else self._hedge_ms / 1000
        if self._parts.circuits.state(target.replica, target.url) != "closed":
            delay = PROBE_PATIENCE if delay is None else min(delay, PROBE_PATIENCE)
        first = self._begun_by(route, target, stream=stream)
        if delay is None or self._sent:
            return await first

        async def second() -> Coroutine[Any, Any, Turn] | None:
            found = self._leads.ready(self._beside(route))
            return None if found is None else self._begun_by(*found, stream=stream)

        turn = await hedged(first, second, delay, self._drop)
        self._credit(turn.attempt)
        return turn

    async def _begun_by(self, route: Route, target: Target, *, stream: bool) -> Turn:
        """Ask one replica; return its turn once it has begun to answer."""
        turn = Turn(self._attempt(route, target), self._call, self._entry, self._parts)
        if not self._sent:
            self._credit(turn.attempt)
        try:
            await turn.begin(stream=stream)
        except SETBACKS as error:
            self._set_back(turn, error)
            raise
        except EngineFault as error:
            raise self._refused(turn, error) from error
        except BaseException:
            self._drop(turn)
            raise
        self._credit(turn.attempt)
        if self._entry.first_token_ms is None:
            self._entry.first_token_ms = round((time.perf_counter() - self._begun) * 1000, 3)
        return turn

    def _attempt(self, route: Route, target: Target) -> Attempt:
        call, said = self._call, self._said
        watch = Watch(route.deadlines, self._leads.end, self._parts.alarms.loop)
        if said is None:
            return Attempt(call, route, target, watch, blank=self._blank is not None)
        restart = self._way(target) == "restart"
        seam = Seam(said, skip=restart)
        if restart:
            return Attempt(call, route, target, watch, seam=seam)
        attempt = Attempt(continuation(call, said, target), route, target, watch, seam=seam)
        attempt.tally.carried = said.tokens
        return attempt

    def _set_back(self, turn: Turn, error: EngineLost | Busy | TooSlow) -> None:
        """Take note of a failure: what to do about it depends on what the client has."""
        target = turn.attempt.target
        self._leads.failed(target, error)
        if isinstance(error, Blank):
            self._blank = turn
            turn.piece = error.piece
        if isinstance(error, Mismatch) and self._exact:
            self._exact = False  # but it may go on from the text
            self._leads.retry(target)
        if self._sent:
            self._said = transcribe(self._sent)
        turn.end(self._verdict(error), error)

    def _refused(self, turn: Turn, error: EngineFault) -> EngineFault | Mismatch:
        """Return what it means that an engine does not want the call."""
        if self._said is None:
            turn.end(self._parts.circuits.answered, error)
            return error
        found = differs()  # it refuses to go on, not what the client asks
        self._set_back(turn, found)
        return found

    def _drop(self, turn: Turn) -> None:
        """End a turn that lost a race or that nobody waits for: no reason not to ask again."""
        self._leads.retry(turn.attempt.target)
        turn.end(self._parts.circuits.dropped, GeneratorExit())

    def _verdict(self, error: EngineLost | Busy | TooSlow) -> Report:
        """Return what a failure says about a replica."""
        circuits = self._parts.circuits
        if isinstance(error, Busy):
            return partial(circuits.busy, seconds=error.retry_after or 0.0)
        if isinstance(error, (Blank, Mismatch)):
            return circuits.answered
        return circuits.dropped if error.code == TOTAL else circuits.failed

    def _keep(self, chunks: list[Chunk]) -> None:
        """Keep what goes out: should the engine fail, the answer goes on from it."""
        if self._sent and len(self._sent) + len(chunks) > MOST_KEPT:
            self._forgotten = True
        else:
            self._sent += chunks

    def _missing_end(self) -> list[Chunk] | None:
        """Return the end of an answer that is all there but for that."""
        said = self._said
        if said is None or self._forgotten or not said.plain or not spent(self._call, said):
            return None
        part: dict[str, object] = {"text": ""} if self._call.task == "completion" else {"delta": {}}
        event = {**said.head, "choices": [{"index": 0, **part, "finish_reason": "length"}]}
        return [Chunk(msgspec.json.encode(event), event, finished=True)]

    def _fits(self, route: Route, target: Target) -> bool:
        """Say whether a replica can go on with what the client has; anybody can with nothing."""
        if self._said is None or self._by is None:
            return True
        if self._forgotten:
            return False
        source = self._by.route
        same = (route.deployment, route.digest) == (source.deployment, source.digest)
        return same and self._way(target) is not None

    def _beside(self, route: Route) -> Fits:
        """Return what holds for replicas of a deployment: nothing has failed, so no fallback."""
        return lambda other, _target: other.deployment == route.deployment

    def _way(self, target: Target) -> Way | None:
        assert self._said is not None
        return way(self._call, self._said, target, exact=self._exact)

    def _credit(self, attempt: Attempt) -> None:
        """Write into the record who answers."""
        if self._by is attempt:
            return
        entry, route = self._entry, attempt.route
        self._by, self.tally = attempt, attempt.tally
        entry.deployment, entry.replica = route.deployment, attempt.target.replica
        entry.model, entry.version, entry.digest = route.model, route.version, route.digest

    def _count(self) -> None:
        """Write into the record what it took."""
        entry, tally = self._entry, self.tally
        entry.tokens_in, entry.tokens_out = tally.prompt, tally.completion
        entry.tokens_cached, entry.estimated = tally.cached, tally.estimated
        self._parts.dispatch.learn(entry.deployment, tally.completion)


def _nobody() -> EngineLost:
    return EngineLost("unavailable.engine_lost", "no replica answers", retry_after=1)
