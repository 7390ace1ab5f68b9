"""What is counted, and how it is written for Prometheus."""

from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from freehold.record import meter as meters
from freehold.record.entry import Entry
from freehold.record.exposition import OPENMETRICS, TEXT, negotiate, render
from freehold.record.families import (
    ATTRIBUTES,
    BUILD,
    FAMILIES,
    OPEN,
    REPLICAS,
    REQUESTS,
    REVISION,
    SERVER_DURATION,
)
from freehold.record.measure import Measures
from freehold.record.meter import Meter, Sample, gather


def _entry(**fields: object) -> Entry:
    usual = {
        "id": "req-1", "at": 1.0, "action": "completion:run", "outcome": "ok", "status": 200,
        "dialect": "chat", "stream": True, "requested": "auto", "deployment": "smol",
        "principal": "alice", "key": "key-1", "model": "smollm2", "attempts": 1, "tokens_in": 7,
        "tokens_out": 5, "tokens_cached": 3, "first_token_ms": 30.0, "total_ms": 430.0,
    }  # fmt: skip
    return Entry(**{**usual, **fields})  # type: ignore[arg-type]


def _samples(directory: Path) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = render(gather(directory), OPENMETRICS).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in read_openmetrics(text)
        for sample in family.samples
    }


def _value(directory: Path, name: str, **labels: str) -> float | None:
    return _samples(directory).get((name, tuple(sorted(labels.items()))))


def test_a_request_is_counted_once_everywhere(tmp_path: Path) -> None:
    meter = Meter(tmp_path)
    Measures(meter).count(_entry(), commit=0.004)
    model = {
        "gen_ai_operation_name": "chat", "gen_ai_provider_name": "freehold",
        "gen_ai_request_model": "auto", "gen_ai_response_model": "smollm2",
    }  # fmt: skip
    here = {"deployment": "smol", "dialect": "chat"}
    expected = {
        ("freehold_requests_total", ("action", "completion:run"), ("status", "2xx")): 1,
        ("freehold_request_duration_seconds_sum", ("outcome", "ok")): 0.434,
        ("freehold_audit_commit_duration_seconds_sum",): 0.004,
    }
    found = _samples(tmp_path)
    for (name, *labels), value in expected.items():
        matching = [v for (n, ls), v in found.items() if n == name and set(labels) <= set(ls)]
        assert matching == [pytest.approx(value)], name
    assert _value(tmp_path, "freehold_tokens_total", deployment="smol", type="cached") == 3
    assert _value(tmp_path, "freehold_time_to_first_token_seconds_sum", **here) == 0.03
    assert _value(tmp_path, "freehold_time_per_output_token_seconds_sum", **here) == 0.1
    assert _value(tmp_path, "gen_ai_server_request_duration_seconds_count", **model) == 1
    assert _value(tmp_path, "gen_ai_server_time_to_first_token_seconds_sum", **model) == 0.03
    for kind, count in (("input", 7), ("output", 5)):
        usage = {**model, "gen_ai_token_type": kind}
        assert _value(tmp_path, "gen_ai_client_token_usage_sum", **usage) == count
    meter.close()


@pytest.mark.parametrize("outcome", ["failed", "cancelled", "refused"])
def test_what_did_not_come_whole_has_no_pace(tmp_path: Path, outcome: str) -> None:
    meter = Meter(tmp_path)
    error = "unavailable.engine_lost" if outcome == "failed" else None
    Measures(meter).count(_entry(outcome=outcome, status=503, error=error), commit=0.001)
    found = _samples(tmp_path)
    assert not [name for name, _ in found if "token_seconds" in name]
    kinds = [dict(labels).get("error_type") for name, labels in found if name == SERVER_COUNT]
    assert kinds == [error or outcome]
    meter.close()


SERVER_COUNT = "gen_ai_server_request_duration_seconds_count"


def test_tokens_count_where_an_engine_worked(tmp_path: Path) -> None:
    meter = Meter(tmp_path)
    Measures(meter).count(_entry(outcome="failed", status=503, first_token_ms=None), commit=0.001)
    assert not [name for name, _ in _samples(tmp_path) if "token" in name]
    Measures(meter).count(_entry(outcome="failed", status=503), commit=0.001)
    Measures(meter).count(
        _entry(outcome="cancelled", status=499, first_token_ms=None), commit=0.001
    )
    assert _value(tmp_path, "freehold_tokens_total", deployment="smol", type="output") == 10
    meter.close()


def test_names_of_nothing_and_of_people_make_no_series(tmp_path: Path) -> None:
    meter = Meter(tmp_path)
    refusal = {"outcome": "refused", "status": 404, "deployment": None, "model": None}
    for number in range(50):
        Measures(meter).count(_entry(requested=f"nonsense-{number}", **refusal), commit=0.001)
    text = render(gather(tmp_path), TEXT).decode()
    assert "nonsense" not in text
    assert "alice" not in text
    assert "key-1" not in text
    found = _samples(tmp_path)
    assert [value for (name, _), value in found.items() if name == SERVER_COUNT] == [50]
    meter.close()


def test_a_flood_of_series_is_counted_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meters, "LIMIT", 3)
    meter = Meter(tmp_path)
    for number in range(10):
        meter.add(REQUESTS, ("a", str(number), "", "ok", "2xx"))
    found = gather(tmp_path)["freehold_requests"]
    assert len(found) == 4
    assert Sample(("other",) * 5, [7.0]) in found
    for number in range(10):  # gauges tell of what an operator has named
        meter.put(REPLICAS, (str(number), "ready"), 1)
    assert len(gather(tmp_path)["freehold_replicas"]) == 10
    meter.close()
    again = Meter(tmp_path)
    again.add(REQUESTS, ("a", "new", "", "ok", "2xx"))
    assert Sample(("other",) * 5, [8.0]) in gather(tmp_path)["freehold_requests"]
    again.close()


def test_counts_go_on_and_gauges_begin_anew(tmp_path: Path) -> None:
    labels = ("a", "b", "chat", "ok", "2xx")
    first, second = Meter(tmp_path), Meter(tmp_path)
    for meter in (first, second):
        meter.add(REQUESTS, labels)
        meter.add(OPEN, ())
        meter.put(REVISION, ("gateway-0",), 7)
    assert gather(tmp_path)["freehold_open_requests"] == [Sample((), [2.0])]
    assert gather(tmp_path)["freehold_snapshot_revision"] == [Sample(("gateway-0",), [7.0])]
    first.close()  # as a kill does: its gauge stays on disk, but nobody stands behind it
    assert gather(tmp_path)["freehold_open_requests"] == [Sample((), [1.0])]
    assert gather(tmp_path)["freehold_requests"] == [Sample(labels, [2.0])]
    successor = Meter(tmp_path)
    assert gather(tmp_path)["freehold_open_requests"] == [Sample((), [1.0])]
    successor.add(OPEN, ())
    successor.add(REQUESTS, labels)
    assert gather(tmp_path)["freehold_open_requests"] == [Sample((), [2.0])]
    assert gather(tmp_path)["freehold_requests"] == [Sample(labels, [3.0])]
    successor.close()
    second.close()


def test_a_gauge_of_what_is_gone_is_shown_no_more(tmp_path: Path) -> None:
    meter = Meter(tmp_path)
    meter.put(REPLICAS, ("a", "ready"), 2)
    meter.put(REPLICAS, ("b", "ready"), 1)
    meter.keep_only(REPLICAS, {("b", "ready")})
    assert gather(tmp_path)["freehold_replicas"] == [Sample(("b", "ready"), [1.0])]
    meter.put(REPLICAS, ("a", "ready"), 1)
    assert len(gather(tmp_path)["freehold_replicas"]) == 2
    meter.close()


@pytest.mark.parametrize("hostile", ['a"b', "a\\b", "a\nb", "ä\x00€", "{}", '",x="y', "a\r\nb"])
def test_any_label_survives_both_formats(tmp_path: Path, hostile: str) -> None:
    meter = Meter(tmp_path)
    meter.put(REPLICAS, (hostile, "ready"), 1.5)
    found = gather(tmp_path)
    for content_type, parse in ((OPENMETRICS, read_openmetrics), (TEXT, read_text)):
        (family,) = parse(render(found, content_type).decode())
        assert family.samples[0].labels == {"deployment": hostile, "state": "ready"}
        assert family.samples[0].value == 1.5
    meter.close()


def test_both_formats_hold_to_their_parsers() -> None:
    found = {
        family.name: [
            Sample(tuple(f"v{n}" for n in range(len(family.labels))), [1.0] * family.size)
        ]
        for family in FAMILIES
    }
    strict = list(read_openmetrics(render(found, OPENMETRICS).decode()))
    assert [family.name for family in strict] == [family.name for family in FAMILIES]
    assert {family.unit for family in strict} == {"", "seconds", "bytes"}
    plain = {family.name: family.type for family in read_text(render(found, TEXT).decode())}
    assert plain["freehold_build_info"] == "gauge"
    assert plain["freehold_request_duration_seconds"] == "histogram"
    buckets = [
        s for f in strict for s in f.samples if s.name == SERVER_COUNT.replace("count", "bucket")
    ]
    assert [sample.value for sample in buckets] == [float(n) for n in range(1, 16)]


def test_the_format_is_what_the_scraper_asks_for() -> None:
    assert negotiate(None) == negotiate("text/plain") == negotiate("*/*") == TEXT
    assert negotiate("application/openmetrics-text;version=1.0.0,text/plain;q=0.5") == OPENMETRICS


def test_names_and_labels_are_those_of_the_conventions() -> None:
    from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
    from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
    from opentelemetry.semconv.attributes import error_attributes

    metrics = {v for k, v in vars(gen_ai_metrics).items() if k.isupper()}
    attributes = {
        v for m in (gen_ai_attributes, error_attributes) for k, v in vars(m).items() if k.isupper()
    }
    ours = [family for family in FAMILIES if family.convention]
    assert len(ours) == 4
    assert {family.convention for family in ours} <= metrics
    assert {ATTRIBUTES[label] for family in ours for label in family.labels} <= attributes
    assert SERVER_DURATION.buckets[0] == 0.01
    assert BUILD.kind == "info"
