"""What a process shows of its requests: numbers while they run and when they are over, spans."""

import logging
import os
import time
from collections.abc import Callable
from contextvars import ContextVar

from freehold.errors import EngineLost, FreeholdError, TooSlow
from freehold.gateway.exchange import Exchange
from freehold.gateway.faults import EngineFault
from freehold.gateway.ids import Ids
from freehold.record.entry import Entry
from freehold.record.families import ATTEMPTS, ERRORS, OPEN, RESIDENT, REVISION, RUNNING, UP
from freehold.record.measure import PROVIDER, Measures, operation, requested_model
from freehold.record.meter import Meter
from freehold.record.otlp import Attributes, Collector, Span
from freehold.record.trace import Trace, read, start
from freehold.runtime.process import resident_of
from freehold.store.snapshot import Route, Target

_TRACE: ContextVar[Trace | None] = ContextVar("trace", default=None)
"""The place of the request that runs now."""


class Asking:
    """One request to one engine, on its way. ``headers`` tell the engine its trace."""

    def __init__(
        self,
        telemetry: "Telemetry",
        entry: Entry,
        route: Route,
        target: Target,
        trace: Trace | None,
    ) -> None:
        self.entry = entry
        self.route = route
        self.target = target
        self.trace = trace
        self.headers = trace.headers if trace is not None else []
        self.begun = telemetry.clock()
        self._telemetry = telemetry

    def end(self, error: BaseException | None) -> None:
        """Count it as over."""
        self._telemetry.asked(self, error)


class Telemetry:
    """One a process. ``ratio`` of the traces that begin here are kept, none without a collector."""

    def __init__(
        self,
        name: str,
        meter: Meter,
        collector: Collector | None = None,
        ratio: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.meter = meter
        self.collector = collector
        self.ids = Ids()
        self._ratio = ratio if collector is not None else 0.0
        self.clock = clock
        if not meter.shared:
            logging.getLogger(f"freehold.{name}").warning(
                "HOME/run/metrics cannot be written: what this process counts is not shown until "
                "there is room and it is started again"
            )
        self._measures = Measures(meter)
        meter.put(UP, (name,), 1.0)
        # A counter that begins at one has not grown, and the alert on this code must not miss one.
        meter.add(ERRORS, ("unavailable.audit",), 0.0)

    def begin(self, exchange: Exchange, entry: Entry) -> Trace:
        """Take a request in; what it goes on to do belongs to the trace that is returned."""
        caller = None
        if exchange.header("traceparent") is not None:
            caller = read(exchange.headers("traceparent"), exchange.headers("tracestate"))
        trace = start(caller, self.ids.draw(48), self._ratio)
        entry.trace, entry.span = trace.id, trace.span
        _TRACE.set(trace)
        self.meter.add(OPEN)
        return trace

    def end(self, exchange: Exchange, entry: Entry, trace: Trace, commit: float) -> None:
        """Count a request that is over; ``commit`` is the seconds its record took."""
        self.meter.add(OPEN, (), -1.0)
        self._measures.count(entry, commit)
        if self.collector is not None and trace.sampled:
            self.collector.take(
                Span(
                    name=f"{exchange.method[:20]} {_route(exchange.path, entry)}",
                    trace=trace,
                    serves=True,
                    begun=entry.at,
                    ended=entry.at + entry.total_ms / 1000 + commit,
                    attributes=_served(exchange, entry),
                    error=(entry.error or "") if entry.status >= 500 else "",
                )
            )

    def ask(self, entry: Entry, route: Route, target: Target) -> "Asking":
        """Count one request to one engine as running; it has a span of its own."""
        self.meter.add(RUNNING, (route.deployment,))
        outer = _TRACE.get()
        trace = outer.child(self.ids.draw(16)) if outer is not None else None
        return Asking(self, entry, route, target, trace)

    def asked(self, asking: "Asking", error: BaseException | None) -> None:
        """Count a request to an engine that has ended, with that error if any."""
        route, trace = asking.route, asking.trace
        outcome = _outcome(error)
        self.meter.add(RUNNING, (route.deployment,), -1.0)
        self.meter.add(ATTEMPTS, (route.deployment, outcome))
        if self.collector is not None and trace is not None and trace.sampled:
            attributes = _asked(asking.entry, route, asking.target)
            self.collector.take(
                Span(
                    name=f"{attributes['gen_ai.operation.name']} {route.deployment}",
                    trace=trace,
                    serves=False,
                    begun=asking.begun,
                    ended=self.clock(),
                    attributes=attributes,
                    error=_code(error),
                )
            )

    def show(self, revision: int) -> None:
        """Say which snapshot this process works from and what memory it holds."""
        self.meter.put(REVISION, (self.name,), revision)
        self.meter.put(RESIDENT, (self.name,), resident_of(os.getpid()))

    def close(self) -> None:
        """Send what waits to be sent, and stop counting; blocks."""
        if self.collector is not None:
            self.collector.close()
        self.meter.close()


def _outcome(problem: BaseException | None) -> str:
    if problem is None:
        return "ok"
    if isinstance(problem, TooSlow):
        return "too_slow"
    if isinstance(problem, EngineLost):
        return "lost"
    if isinstance(problem, EngineFault):
        return "refused"
    return "failed" if isinstance(problem, FreeholdError) else "cancelled"


def _code(problem: BaseException | None) -> str:
    if problem is None:
        return ""
    return problem.code if isinstance(problem, (FreeholdError, EngineFault)) else "cancelled"


def _route(path: str, entry: Entry) -> str:
    """Return a name of few: the path where it is one of ours, else what was meant to be done."""
    return path if entry.dialect else entry.action


def _served(exchange: Exchange, entry: Entry) -> Attributes:
    found: dict[str, str | int | float | bool] = {
        "http.request.method": exchange.method[:20],
        "url.path": exchange.path[:200],
        "http.response.status_code": entry.status,
        "freehold.request": entry.id,
        "freehold.action": entry.action,
        "freehold.outcome": entry.outcome,
    }
    if entry.dialect is None:
        return found
    found |= {
        "gen_ai.operation.name": operation(entry.dialect),
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": requested_model(entry),
        "gen_ai.request.stream": entry.stream,
        "freehold.deployment": entry.deployment or "",
        "freehold.attempts": entry.attempts,
    }
    if entry.deployment is not None:
        found["gen_ai.response.model"] = entry.model or ""
        found["gen_ai.usage.input_tokens"] = entry.tokens_in
        found["gen_ai.usage.output_tokens"] = entry.tokens_out
        found["gen_ai.usage.cache_read.input_tokens"] = entry.tokens_cached
    if entry.first_token_ms is not None:
        found["gen_ai.response.time_to_first_chunk"] = entry.first_token_ms / 1000
    return found


def _asked(entry: Entry, route: Route, target: Target) -> Attributes:
    return {
        "gen_ai.operation.name": operation(entry.dialect or ""),
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": target.model,
        "gen_ai.response.model": route.model or "",
        "freehold.deployment": route.deployment,
        "freehold.replica": target.replica,
        "freehold.engine": route.engine,
        "freehold.place": route.place,
    }
