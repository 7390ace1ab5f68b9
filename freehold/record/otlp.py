"""Traces and metrics to an OpenTelemetry collector, as OTLP over HTTP.

Uses the OpenTelemetry SDK, an optional extra that is imported only here and only where an endpoint
is set. Spans go into a bounded queue that a thread of the SDK sends off: a collector that is slow
or away costs spans, never a request.
"""

import socket
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from freehold import __version__
from freehold.errors import Invalid, Missing
from freehold.record.families import ATTRIBUTES, BY_NAME
from freehold.record.meter import Sample
from freehold.record.trace import Trace
from freehold.secret import resolve_secret
from freehold.settings import Telemetry

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import HistogramDataPoint, Metric

Attributes = Mapping[str, str | int | float | bool | Sequence[str]]

QUEUE = 4096
"""Spans that wait at most; further ones push the oldest out."""
BATCH = 512
SEND_EVERY_MS = 1000.0
CLOSE_WITHIN = 2.0
"""Seconds a stop waits for a collector that does not answer."""


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A finished span. Times in epoch seconds; ``error`` is its ``error.type``, "" when well."""

    name: str
    trace: Trace
    serves: bool
    begun: float
    ended: float
    attributes: Attributes
    error: str = ""


class Collector:
    """Sends one process's spans and metrics to the collector of ``settings``."""

    def __init__(self, settings: Telemetry, process: str) -> None:
        sdk = _sdk()
        self._sdk = sdk
        self._resource = sdk.Resource.create(
            {
                "service.name": "freehold",
                "service.version": __version__,
                "service.instance.id": f"{socket.gethostname()}/{process}",
            }
        )
        self._scope = sdk.InstrumentationScope("freehold", __version__)
        self._remote: dict[str, Any] = {
            "headers": {name: resolve_secret(text) for name, text in settings.headers.items()},
            "timeout": settings.timeout,
        }
        self._endpoint = settings.endpoint.rstrip("/")
        self._spans = sdk.BatchSpanProcessor(
            sdk.OTLPSpanExporter(
                f"{self._endpoint}/v1/traces", session=sdk.session(), **self._remote
            ),
            max_queue_size=QUEUE,
            schedule_delay_millis=SEND_EVERY_MS,
            max_export_batch_size=BATCH,
        )
        self._metrics: Any = None

    def take(self, span: Span) -> None:
        """Queue a finished span; does no I/O."""
        sdk, trace = self._sdk, span.trace
        attributes = dict(span.attributes)
        if span.error:
            attributes["error.type"] = span.error
        self._spans.on_end(
            sdk.ReadableSpan(
                span.name,
                context=self._context(trace, trace.span, remote=False),
                parent=self._context(trace, trace.parent, remote=span.serves),
                resource=self._resource,
                attributes=attributes,
                kind=sdk.SpanKind.SERVER if span.serves else sdk.SpanKind.CLIENT,
                status=sdk.Status(sdk.StatusCode.ERROR if span.error else sdk.StatusCode.UNSET),
                start_time=int(span.begun * 1e9),
                end_time=int(span.ended * 1e9),
                instrumentation_scope=self._scope,
            )
        )

    def send_metrics(self, found: Mapping[str, Sequence[Sample]], since: float, now: float) -> None:
        """Send the metrics of the conventions as they stand; blocks until taken or timed out."""
        sdk = self._sdk
        if self._metrics is None:
            self._metrics = sdk.OTLPMetricExporter(
                f"{self._endpoint}/v1/metrics", session=sdk.session(), **self._remote
            )
        times = (int(since * 1e9), int(now * 1e9))
        metrics = [
            self._metric(name, samples, times)
            for name, samples in found.items()
            if BY_NAME[name].convention
        ]
        if metrics:
            scoped = sdk.ScopeMetrics(self._scope, metrics, "")
            grouped = sdk.ResourceMetrics(self._resource, [scoped], "")
            self._metrics.export(sdk.MetricsData([grouped]))

    def close(self) -> None:
        """Send what is queued; blocks, but no longer than ``CLOSE_WITHIN``."""
        ending = threading.Thread(target=self._spans.shutdown, daemon=True)
        ending.start()
        ending.join(CLOSE_WITHIN)
        if self._metrics is not None:
            self._metrics.shutdown()

    def _context(self, trace: Trace, span: str, *, remote: bool) -> Any:
        if not span:
            return None
        sdk = self._sdk
        state = sdk.TraceState.from_header([trace.state]) if trace.state else None
        return sdk.SpanContext(
            int(trace.id, 16), int(span, 16), remote, sdk.TraceFlags(trace.flags), state
        )

    def _metric(self, name: str, samples: Sequence[Sample], times: tuple[int, int]) -> "Metric":
        sdk, family = self._sdk, BY_NAME[name]
        points = [self._point(name, sample, times) for sample in samples]
        data = sdk.Histogram(points, sdk.AggregationTemporality.CUMULATIVE)
        unit = {"seconds": "s"}.get(family.unit, "{token}")
        metric: Metric = sdk.Metric(family.convention, family.help, unit, data)
        return metric

    def _point(self, name: str, sample: Sample, times: tuple[int, int]) -> "HistogramDataPoint":
        family = BY_NAME[name]
        *counts, total = sample.numbers
        labels = zip(family.labels, sample.labels, strict=True)
        point: HistogramDataPoint = self._sdk.HistogramDataPoint(
            attributes={ATTRIBUTES[label]: value for label, value in labels if value},
            start_time_unix_nano=times[0],
            time_unix_nano=times[1],
            count=int(sum(counts)),
            sum=total,
            bucket_counts=[int(count) for count in counts],
            explicit_bounds=list(family.buckets),
            min=None,
            max=None,
        )
        return point


def open_collector(settings: Telemetry, process: str) -> Collector | None:
    """Return the collector that is configured, if one is; every mistake in it shows here."""
    if not settings.endpoint:
        return None
    if not settings.endpoint.startswith(("http://", "https://")):
        raise Invalid(
            "invalid.telemetry",
            f"telemetry.endpoint is an address as http://127.0.0.1:4318, not {settings.endpoint!r}",
        )
    return Collector(settings, process)


def _sdk() -> Any:
    try:
        from freehold.record import otel
    except ImportError as error:
        raise Missing(
            "missing.otel",
            "telemetry.endpoint is set, but the OpenTelemetry SDK is not installed: "
            f"pip install 'freehold[otel]', or remove the setting ({error})",
        ) from error
    return otel
