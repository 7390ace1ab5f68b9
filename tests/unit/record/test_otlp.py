"""What goes to a collector, and what a wrong setting says."""

import time
from pathlib import Path

import pytest

from freehold.errors import Invalid, Missing
from freehold.record.families import SERVER_DURATION
from freehold.record.meter import Sample
from freehold.record.otlp import Collector, Span, open_collector
from freehold.record.trace import Trace
from freehold.settings import Telemetry, parse_settings
from tests.collector import attributes, collecting


def test_no_endpoint_is_no_collector() -> None:
    assert open_collector(Telemetry(), "gateway-0") is None


@pytest.mark.parametrize("endpoint", ["127.0.0.1:4318", "ftp://a", "grpc://127.0.0.1:4317"])
def test_an_endpoint_is_an_address(endpoint: str) -> None:
    with pytest.raises(Invalid, match="an address as http://"):
        open_collector(Telemetry(endpoint=endpoint), "gateway-0")


def test_headers_are_secrets_by_reference(tmp_path: Path) -> None:
    where = "http://127.0.0.1:9"
    with pytest.raises(Invalid, match="by reference"):
        open_collector(Telemetry(endpoint=where, headers={"authorization": "literal"}), "g")
    with pytest.raises(Missing, match="cannot read"):
        open_collector(Telemetry(endpoint=where, headers={"a": f"file:{tmp_path / 'x'}"}), "g")


@pytest.mark.parametrize("wrong", ["sample_ratio = 2.0", "timeout = 0.0", "endpoints = ''"])
def test_wrong_settings_are_named(wrong: str) -> None:
    with pytest.raises(Invalid, match=r"sample_ratio|timeout|endpoints"):
        parse_settings(f"[telemetry]\n{wrong}\n")


def test_spans_and_metrics_arrive_as_they_are() -> None:
    with collecting() as there:
        ours = Collector(Telemetry(endpoint=f"{there.url}/"), "gateway-0")
        place = Trace("a" * 32, "b" * 16, "c" * 16, 1, "vendor=1")
        span = Span(
            name="POST /v1", trace=place, serves=True, begun=10.5, ended=11.25,
            attributes={"gen_ai.request.model": "smol"}, error="unavailable.engine_lost",
        )  # fmt: skip
        ours.take(span)
        sample = Sample(("chat", "freehold", "smol", "m", ""), [1.0] * 15 + [4.5])
        ours.send_metrics({SERVER_DURATION.name: [sample], "freehold_ready": []}, 5.0, 12.0)
        ours.close()
    (got,) = there.spans
    assert (got.trace_id.hex(), got.span_id.hex()) == (place.id, place.span)
    assert (got.parent_span_id.hex(), got.trace_state) == (place.parent, "vendor=1")
    assert (got.start_time_unix_nano, got.end_time_unix_nano) == (10_500_000_000, 11_250_000_000)
    assert (got.kind, got.status.code) == (2, 2)
    assert attributes(got)["error.type"] == "unavailable.engine_lost"
    assert there.resources[0]["service.instance.id"].endswith("/gateway-0")
    (point,) = there.metrics["gen_ai.server.request.duration"].histogram.data_points
    assert (point.count, point.sum, list(point.bucket_counts)) == (15, 4.5, [1] * 15)
    assert (point.start_time_unix_nano, point.time_unix_nano) == (5_000_000_000, 12_000_000_000)
    assert attributes(point)["gen_ai.response.model"] == "m"
    assert "error.type" not in attributes(point)


def test_a_collector_that_is_away_costs_nobody_anything() -> None:
    ours = Collector(Telemetry(endpoint="http://127.0.0.1:9", timeout=0.2), "gateway-0")
    span = Span(
        name="a", trace=Trace("a" * 32, "b" * 16, "", 1), serves=False, begun=1.0, ended=2.0,
        attributes={},
    )  # fmt: skip
    for _ in range(5000):  # more than wait at most: the oldest are dropped
        ours.take(span)
    ours.send_metrics({SERVER_DURATION.name: [Sample(("",) * 5, [0.0] * 16)]}, 1.0, 2.0)
    begun = time.monotonic()
    ours.close()
    assert time.monotonic() - begun < 15  # the SDK alone would wait for 30


def test_a_collector_that_hangs_does_not_hold_up_a_stop() -> None:
    with collecting() as there:
        there.ailment = "hangs"
        ours = Collector(Telemetry(endpoint=there.url, timeout=60), "gateway-0")
        trace = Trace("a" * 32, "b" * 16, "", 1)
        ours.take(Span(name="a", trace=trace, serves=False, begun=1.0, ended=2.0, attributes={}))
        begun = time.monotonic()
        ours.close()
        assert time.monotonic() - begun < 15
    assert there.spans == []
