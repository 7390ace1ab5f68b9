"""What a process shows of its requests: numbers while they run and when they are over, spans."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from freehold.errors import EngineLost, FreeholdError, TooSlow
from freehold.gateway.exchange import Exchange
from freehold.gateway.faults import EngineFault
from freehold.record.entry import Entry
from freehold.record.families import ATTEMPTS, ERRORS, OPEN, RESIDENT, REVISION, RUNNING, UP
from freehold.record.measure import PROVIDER, measure, operation, requested_model
from freehold.record.meter import Meter
from freehold.record.otlp import Attributes, Collector, Span
from freehold.record.trace import Trace, read, start
from freehold.runtime.process import resident_of
from freehold.store.snapshot import Route, Target

_TRACE: ContextVar[Trace | None] = ContextVar("trace", default=None)
"""The place of what runs now: set for a request, and within it for each attempt."""


def trace_headers() -> list[tuple[str, str]]:
    """Return the headers that tell an engine which span its work belongs to."""
    trace = _TRACE.get()
    return trace.headers if trace is not None else []


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
        self._ratio = ratio if collector is not None else 0.0
        self._clock = clock
        if not meter.shared:
            logging.getLogger(f"freehold.{name}").warning(
                "HOME/run/metrics cannot be written: what this process counts is not shown until "
                "there is room and it is started again"
            )
        meter.put(UP, (name,), 1.0)
        # A counter that begins at one has not grown, and the alert on this code must not miss one.
        meter.add(ERRORS, ("unavailable.audit",), 0.0)

    def begin(self, exchange: Exchange, entry: Entry) -> Trace:
        """Take a request in; what it goes on to do belongs to the trace that is returned."""
        caller = None
        if exchange.header("traceparent") is not None:
            caller = read(exchange.headers("traceparent"), exchange.headers("tracestate"))
        trace = start(caller, os.urandom(24).hex(), self._ratio)
        entry.trace, entry.span = trace.id, trace.span
        _TRACE.set(trace)
        self.meter.add(OPEN)
        return trace

    def end(self, exchange: Exchange, entry: Entry, trace: Trace, commit: float) -> None:
        """Count a request that is over; ``commit`` is the seconds its record took."""
        self.meter.add(OPEN, (), -1.0)
        measure(self.meter, entry, commit)
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

    @contextmanager
    def attempt(self, entry: Entry, route: Route, target: Target) -> Iterator[None]:
        """Count one request to one engine, and give it a span of its own."""
        outer = _TRACE.get()
        trace = outer.child(os.urandom(8).hex()) if outer is not None else None
        _TRACE.set(trace)
        begun, outcome, error = self._clock(), "ok", ""
        self.meter.add(RUNNING, (route.deployment,))
        try:
            yield
        except (FreeholdError, EngineFault) as problem:
            outcome, error = _outcome(problem), problem.code
            raise
        except BaseException:
            outcome = error = "cancelled"
            raise
        finally:
            _TRACE.set(outer)
            self.meter.add(RUNNING, (route.deployment,), -1.0)
            self.meter.add(ATTEMPTS, (route.deployment, outcome))
            if self.collector is not None and trace is not None and trace.sampled:
                attributes = _asked(entry, route, target)
                self.collector.take(
                    Span(
                        name=f"{attributes['gen_ai.operation.name']} {route.deployment}",
                        trace=trace,
                        serves=False,
                        begun=begun,
                        ended=self._clock(),
                        attributes=attributes,
                        error=error,
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


def _outcome(problem: FreeholdError | EngineFault) -> str:
    if isinstance(problem, TooSlow):
        return "too_slow"
    if isinstance(problem, EngineLost):
        return "lost"
    return "refused" if isinstance(problem, EngineFault) else "failed"


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
