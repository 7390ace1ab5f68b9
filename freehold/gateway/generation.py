"""One call on its way through engines, until one has answered.

``stream`` yields chunks, ``whole`` returns one reply. Both end only with a whole answer: what an
engine breaks off, garbles or answers with an error is tried elsewhere or raised, never passed on.
A stream that broke off is continued by another replica, where that can be done so that nobody
could tell.
"""

import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from functools import partial

import msgspec

from freehold.errors import Busy, EngineLost, FreeholdError, TooSlow
from freehold.gateway.attempt import Attempt, Blank, Piece
from freehold.gateway.exchange import Exchange
from freehold.gateway.faults import EngineFault
from freehold.gateway.hedge import hedged
from freehold.gateway.leads import Fits, Lead, Leads, seconds
from freehold.gateway.parts import Parts
from freehold.gateway.resume import Way, continuation, spent, way
from freehold.gateway.seam import Mismatch, Seam, differs
from freehold.gateway.transcript import Transcript, transcribe
from freehold.gateway.watch import TOTAL, too_slow
from freehold.gateway.wire.call import Call
from freehold.gateway.wire.dialect import Chunk, Reply
from freehold.gateway.wire.usage import Tally
from freehold.record.entry import Entry
from freehold.store.snapshot import Route, Target

Report = Callable[[str, str], None]

SETBACKS = (EngineLost, Busy, TooSlow)
"""What one replica could not do, another may."""

MOST_KEPT = 1 << 15
"""Events of a stream that are kept; one that is longer does not go on elsewhere."""

PROBE_PATIENCE = 2.0
"""Seconds after which a request that probes a suspicious replica asks another one too."""


class Generation:
    """What becomes of one call. ``tally`` is right at every moment, also when we break off."""

    def __init__(self, call: Call, exchange: Exchange, parts: Parts, entry: Entry) -> None:
        self._call = call
        self._parts = parts
        self._entry = entry
        self._begun = time.perf_counter()
        self._leads = Leads(call, exchange, parts)
        self._hedge_ms = seconds(exchange, "x-freehold-hedge-ms") or self._leads.first.hedge_ms
        self._sent: list[Chunk] = []
        self._said: Transcript | None = None
        self._forgotten = False
        self._exact = True
        self._blank: tuple[Attempt, Piece] | None = None
        self._by: Attempt | None = None
        self.tally = Tally(call)

    async def stream(self) -> AsyncGenerator[list[Chunk], None]:
        """Yield the answer's chunks as they come; returns only once every choice has finished."""
        with self._counted():
            async with aclosing(self._pieces(stream=True)) as pieces:
                async for piece in pieces:
                    assert isinstance(piece, list)
                    self._keep(piece)
                    yield piece

    async def whole(self) -> Reply:
        """Return the whole answer."""
        found: Piece | None = None
        with self._counted():
            async with aclosing(self._pieces(stream=False)) as pieces:
                async for piece in pieces:
                    found = piece
        assert isinstance(found, Reply)
        return found

    def _keep(self, chunks: list[Chunk]) -> None:
        """Keep what goes out: should the engine fail, the answer goes on from it."""
        if self._sent and len(self._sent) + len(chunks) > MOST_KEPT:
            self._forgotten = True
        else:
            self._sent += chunks

    async def _pieces(self, *, stream: bool) -> AsyncGenerator[Piece, None]:
        """Ask one replica after the other until one has answered."""
        lost: FreeholdError | None = None
        while (lead := await self._next()) is not None:
            try:
                async with aclosing(self._answers(lead, stream=stream)) as pieces:
                    async for piece in pieces:
                        yield piece
                return
            except SETBACKS as error:
                if error.code == TOTAL:
                    raise too_slow("total", self._leads.total) from error
                lost = error
            if (end := self._missing_end()) is not None:
                yield end
                return
        if self._blank is None:
            raise lost or _nobody()
        attempt, piece = self._blank
        self._credit(attempt)
        yield piece

    async def _next(self) -> Lead | None:
        """Return whom to ask now, None when there is nobody."""
        if self._blank is not None:  # a second opinion is worth a question, not a wait
            return self._leads.ready(self._beside(self._blank[0].route))
        if self._said is not None and self._leads.none(self._fits):
            return None
        return await self._leads.next(self._fits)

    def _answers(self, lead: Lead, *, stream: bool) -> AsyncGenerator[Piece, None]:
        """Ask a replica; and another beside it, where that was wished for or seems wise."""
        route, target = lead
        delay = None if self._hedge_ms is None else self._hedge_ms / 1000
        if self._parts.circuits.state(target.replica, target.url) != "closed":
            delay = PROBE_PATIENCE if delay is None else min(delay, PROBE_PATIENCE)
        first = self._asked(self._attempt(route, target), stream=stream)
        if delay is None or self._sent:
            return first

        async def second() -> AsyncGenerator[Piece, None] | None:
            found = self._leads.ready(self._beside(route))
            return None if found is None else self._asked(self._attempt(*found), stream=stream)

        return hedged(first, second, delay)

    def _attempt(self, route: Route, target: Target) -> Attempt:
        call, said, end = self._call, self._said, self._leads.end
        if said is None:
            return Attempt(call, route, target, end, blank=self._blank is not None)
        restart = self._way(target) == "restart"
        seam = Seam(said, skip=restart)
        if restart:
            return Attempt(call, route, target, end, seam=seam)
        attempt = Attempt(continuation(call, said, target), route, target, end, seam=seam)
        attempt.tally.carried = said.tokens
        return attempt

    async def _asked(self, attempt: Attempt, *, stream: bool) -> AsyncGenerator[Piece, None]:
        """Hold the replica while it answers, and tell its circuit how that went."""
        parts, route, target = self._parts, attempt.route, attempt.target
        await parts.allowances.answer_by(self._entry, route)
        self._entry.attempts += 1
        if not self._sent:
            self._credit(attempt)
        report: Report = parts.circuits.dropped
        try:
            with (
                parts.dispatch.hold(self._call, route.deployment, target),
                parts.books.telemetry.attempt(self._entry, route, target),
            ):
                async with aclosing(self._asking(attempt, stream=stream)) as pieces:
                    async for piece in pieces:
                        self._credit(attempt)
                        self._first()
                        yield piece
            report = parts.circuits.answered
        except SETBACKS as error:
            self._set_back(attempt, error)
            report = self._verdict(error)
            raise
        except EngineFault as error:
            report = parts.circuits.answered
            if self._said is None:
                raise
            self._set_back(attempt, differs())  # it refuses to go on, not what the client asked
            raise differs() from error
        finally:
            if report == parts.circuits.dropped:
                self._leads.retry(target)  # it lost a race, which is no reason not to ask it
            report(target.replica, target.url)

    def _verdict(self, error: EngineLost | Busy | TooSlow) -> Report:
        """Return what a failure says about a replica."""
        circuits = self._parts.circuits
        if isinstance(error, Busy):
            return partial(circuits.busy, seconds=error.retry_after or 0.0)
        if isinstance(error, (Blank, Mismatch)):
            return circuits.answered
        return circuits.dropped if error.code == TOTAL else circuits.failed

    def _asking(self, attempt: Attempt, *, stream: bool) -> AsyncGenerator[Piece, None]:
        upstream = self._parts.upstream
        if stream:
            return attempt.stream(upstream)
        if attempt.target.streams_only and self._call.streams:
            return attempt.assembled(upstream)
        return attempt.document(upstream)

    def _set_back(self, attempt: Attempt, error: FreeholdError) -> None:
        """Take note of a failure: what to do about it depends on what the client has."""
        self._leads.failed(attempt.target, error)
        if isinstance(error, Blank):
            self._blank = (attempt, error.piece)
        if isinstance(error, Mismatch) and self._exact:
            self._exact = False  # but it may go on from the text
            self._leads.retry(attempt.target)
        if self._sent:
            self._said = transcribe(self._sent)

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

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Write into the record what it took."""
        try:
            yield
        finally:
            entry, tally = self._entry, self.tally
            entry.tokens_in, entry.tokens_out = tally.prompt, tally.completion
            entry.tokens_cached, entry.estimated = tally.cached, tally.estimated
            self._parts.dispatch.learn(entry.deployment, tally.completion)

    def _first(self) -> None:
        if self._entry.first_token_ms is None:
            self._entry.first_token_ms = round((time.perf_counter() - self._begun) * 1000, 3)


def _nobody() -> EngineLost:
    return EngineLost("unavailable.engine_lost", "no replica answers", retry_after=1)
