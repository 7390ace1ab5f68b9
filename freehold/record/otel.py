"""The parts of the OpenTelemetry SDK that ``otlp`` works with; needs the extra ``otel``.

Imported only where a collector is configured: it takes 15 MB and 0.2 s.
"""

import requests
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

__all__ = [
    "AggregationTemporality", "BatchSpanProcessor", "Histogram", "HistogramDataPoint",
    "InstrumentationScope", "Metric", "MetricsData", "OTLPMetricExporter", "OTLPSpanExporter",
    "ReadableSpan", "Resource", "ResourceMetrics", "ScopeMetrics", "SpanContext", "SpanKind",
    "Status", "StatusCode", "TraceFlags", "TraceState", "session",
]  # fmt: skip


def session() -> requests.Session:
    """Return a session that no proxy and no password file of the environment gets hold of."""
    made = requests.Session()
    made.trust_env = False
    return made
