"""An OpenTelemetry collector for tests: takes OTLP over HTTP and decodes it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.servers import reply, serving


@dataclass
class Collector:
    """What came in. ``ailment`` makes it ill: ``refuses`` or ``hangs``."""

    url: str = ""
    spans: list[Any] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    raw: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    ailment: str = ""
    asked: int = 0

    def of(self, trace: str) -> list[Any]:
        return [span for span in self.spans if span.trace_id.hex() == trace]


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector."""
    collector, healthy = Collector(), threading.Event()

    def handle(request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("content-length", 0)))
        collector.asked += 1
        if collector.ailment == "hangs":
            healthy.wait(20)
        if collector.ailment:
            reply(request, 503)
            return
        collector.raw.append(body)
        collector.headers.append({k.lower(): v for k, v in request.headers.items()})
        answer = _traces if request.path == "/v1/traces" else _metrics
        reply(request, 200, answer(collector, body), {"content-type": "application/x-protobuf"})

    with serving(handle) as url:
        collector.url = url
        try:
            yield collector
        finally:
            healthy.set()


def attributes(holder: Any) -> dict[str, Any]:
    """Return the attributes of a span, a resource or a point."""
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value")) for each in holder.attributes
    }


def _traces(collector: Collector, body: bytes) -> bytes:
    request = ExportTraceServiceRequest.FromString(body)
    for group in request.resource_spans:
        collector.resources.append(attributes(group.resource))
        for scope in group.scope_spans:
            collector.spans.extend(scope.spans)
    return ExportTraceServiceResponse().SerializeToString()


def _metrics(collector: Collector, body: bytes) -> bytes:
    request = ExportMetricsServiceRequest.FromString(body)
    for group in request.resource_metrics:
        for scope in group.scope_metrics:
            collector.metrics.update({metric.name: metric for metric in scope.metrics})
    return ExportMetricsServiceResponse().SerializeToString()
