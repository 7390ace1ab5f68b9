"""Freehold seen from outside: metrics, traces, log, and the files that watch them."""

import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from tests.collector import Collector, attributes, collecting
from tests.conftest import _copy
from tests.house import House, eventually
from tests.servers import reply, serving

ROOT = Path(__file__).parents[2]
SECRET = "xylophone-4711"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
OPENMETRICS = {"accept": "application/openmetrics-text;version=1.0.0"}


@dataclass
class Engine:
    """An endpoint that answers at once and remembers the headers it was sent."""

    headers: list[dict[str, str]] = field(default_factory=list)
    hold: threading.Event = field(default_factory=threading.Event)

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        length = int(request.headers.get("content-length", 0))
        body = json.loads(request.rfile.read(length) or b"{}")
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        if body.get("user") == "hold":
            self.hold.wait(20)
        choice = {"index": 0, "message": {"role": "assistant", "content": SECRET[::-1]}}
        answer = {
            "id": "a", "object": "chat.completion", "created": 1, "model": "far",
            "choices": [{**choice, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
        }  # fmt: skip
        reply(request, 200, json.dumps(answer).encode(), {"content-type": "application/json"})


@dataclass
class Watched:
    house: House
    collector: Collector
    engine: Engine

    def ask(self, model: str = "far", **fields: Any) -> Any:
        question = [{"role": "user", "content": SECRET}]
        return self.house.chat(model=model, messages=question, **fields)

    def numbers(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels."""
        return sum(
            value
            for (found, pairs), value in self.samples().items()
            if found == name and labels.items() <= dict(pairs).items()
        )

    def samples(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        answer = self.house.call("GET", "/metrics", headers=OPENMETRICS)
        assert answer.status == 200, answer.body
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in read_openmetrics(answer.body.decode())
            for sample in family.samples
        }


@pytest.fixture(scope="module")
def watched(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A house with two gateways, an endpoint with a dead replica, and a collector."""
    home = _copy(prepared, tmp_path_factory.mktemp("watched") / "home")
    engine = Engine()
    with ExitStack() as stack:
        collector = stack.enter_context(collecting())
        far = stack.enter_context(serving(engine.handle))
        (home / "token").write_text("collector-token")
        (home / "freehold.toml").write_text(
            f'[telemetry]\nendpoint = "{collector.url}"\nmetrics_interval = 0.5\ntimeout = 1\n'
            f'headers = {{authorization = "file:{home / "token"}"}}\n'
            "metrics_without_key = true\n[log]\naccess = true\n"
        )
        house = House(home, ("--workers", "2"))
        stack.callback(house.close)
        house.start()
        house.cli("deploy", "--url", f"{far}/v1", "--as", "far", "--wait")
        house.cli(
            "deploy", "--url", "http://127.0.0.1:9/v1", "--url", f"{far}/v1", "--as", "half",
            "--wait",
        )  # fmt: skip
        yield Watched(house, collector, engine)


def test_the_numbers_are_those_of_the_house_whoever_answers(watched: Watched) -> None:
    before = watched.numbers("freehold_requests_total", deployment="far", outcome="ok")
    with ThreadPoolExecutor(4) as threads:
        assert {a.status for a in threads.map(lambda _: watched.ask(), range(24))} == {200}
    records = watched.house.audit(limit="100", deployment="far")
    assert len(records) == before + 24
    for _ in range(8):  # each call is a new connection: the kernel picks the gateway
        found = watched.samples()
        mine = {"deployment": "far", "outcome": "ok", "dialect": "chat", "status": "2xx"}
        mine["action"] = "completion:run"
        assert found["freehold_requests_total", frozenset(mine.items())] == before + 24
    lines = _lines(watched.house, "far")
    assert {line["logger"] for line in lines} == {"freehold.gateway-0", "freehold.gateway-1"}
    assert watched.numbers("freehold_tokens_total", deployment="far", type="input") == 5 * len(
        records
    )
    assert watched.numbers("gen_ai_client_token_usage_sum", gen_ai_token_type="output") >= 48
    assert watched.numbers("freehold_process_up") == 3
    labels = frozenset({("code", "unavailable.audit")})  # there before the first one
    assert watched.samples()["freehold_errors_total", labels] == 0
    ready = {"deployment": "smol", "state": "ready"}
    eventually(lambda: watched.numbers("freehold_replicas", **ready) == 1, "control has told")
    assert watched.numbers("freehold_memory_resident_bytes", deployment="smol") > 50e6
    revisions = [v for (n, _), v in watched.samples().items() if n == "freehold_snapshot_revision"]
    assert len(revisions) == 3


def test_no_counter_ever_goes_down_when_a_gateway_is_killed(watched: Watched) -> None:
    with ThreadPoolExecutor(2) as threads:
        holding = [threads.submit(_quietly, watched, user="hold") for _ in range(2)]
        eventually(
            lambda: watched.numbers("freehold_running_requests", deployment="far") == 2, "running"
        )
        before, victims = watched.samples(), watched.house.gateways()
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        assert [each.result() for each in holding] == [None, None]
        watched.engine.hold.set()
    eventually(lambda: _quietly(watched) == 200, "new gateways")
    eventually(lambda: watched.numbers("freehold_process_up") == 3, "all up")
    after = watched.samples()
    counted = [key for key in before if key[0].endswith(("_total", "_count", "_bucket"))]
    assert len(counted) > 50
    for key in counted:
        assert after[key] >= before[key], key
    assert watched.numbers("freehold_running_requests", deployment="far") == 0
    assert watched.numbers("freehold_open_requests") == 1  # the scrape itself
    files = list((watched.house.home / "run" / "metrics").iterdir())
    assert len(files) <= 4  # successors took over what the killed left


def test_who_may_read_the_numbers(house: House, watched: Watched) -> None:
    for role, status in (("admin", 200), ("operator", 200), ("auditor", 200), ("developer", 403)):
        assert house.call("GET", "/metrics", key=house.make_key(role)).status == status
    refused = house.call("GET", "/metrics", key=None)
    assert (refused.status, refused.error["code"]) == (401, "unauthenticated.missing_key")
    assert house.call("POST", "/metrics").status == 405
    assert house.audit(id=refused.error["id"])[0]["action"] == "metrics:read"
    assert watched.house.call("GET", "/metrics", key=None).status == 200
    for header in ("x-forwarded-for", "forwarded", "x-real-ip", "via", "origin"):
        answer = watched.house.call("GET", "/metrics", key=None, headers={header: "10.0.0.1"})
        assert answer.status == 401, header


def test_both_formats(watched: Watched) -> None:
    plain = watched.house.call("GET", "/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert list(read_text(plain.body.decode()))
    strict = watched.house.call("GET", "/metrics", headers=OPENMETRICS)
    assert strict.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert strict.body.endswith(b"# EOF\n")


def test_dashboards_and_rules_use_what_is_there_and_what_is_there_is_documented(
    watched: Watched,
) -> None:
    assert {watched.ask("half").status for _ in range(4)} == {200}
    assert watched.house.chat(stream=True).status == 200
    assert watched.ask("nothing-of-that-name").status == 404
    exposed = {name for name, _ in watched.samples()}
    text = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    documented = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    plain = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exposed}
    assert plain == documented
    paths = [*ROOT.glob("deploy/grafana/*.json"), *ROOT.glob("deploy/prometheus/*.rules.yml")]
    assert len(paths) >= 2
    for path in paths:
        content = path.read_text()
        recorded = set(re.findall(r"record: (\S+)", content))
        used = set(re.findall(r"(?<![\w:])(?:freehold|gen_ai)_\w+(?![\w:])", _expressions(path)))
        labels = {"gen_ai_response_model", "gen_ai_token_type"}
        assert len(used) > 8
        assert used - labels <= exposed, path.name
        for name in recorded:
            assert name in content.replace(f"record: {name}", ""), f"{name} is used"


def test_a_request_is_a_tree_of_spans_in_its_callers_trace(watched: Watched) -> None:
    trace = "a" * 32
    caller = {"traceparent": f"00-{trace}-{SPAN}-01", "tracestate": "vendor=1"}
    for _ in range(2):  # one of them meets the dead replica first
        answer = watched.ask("half", headers=caller)
        assert answer.status == 200
    sent = watched.engine.headers[-1]
    assert sent["tracestate"] == "vendor=1"

    def whole() -> list[Any]:
        found = watched.collector.of(trace)
        return found if sum(span.kind == 2 for span in found) == 2 else []

    spans = eventually(whole, "spans")
    servers = [span for span in spans if span.kind == 2]
    clients = [span for span in spans if span.kind == 3]
    assert {span.parent_span_id.hex() for span in servers} == {SPAN}
    assert {span.name for span in servers} == {"POST /v1/chat/completions"}
    assert {span.parent_span_id for span in clients} == {span.span_id for span in servers}
    assert len(clients) >= 2
    last = next(s for s in servers if s.span_id.hex() == _record(watched, answer)["span"])
    told = attributes(last)
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.request.model"] == told["freehold.deployment"] == "half"
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (5, 2)
    assert told["http.response.status_code"] == 200
    assert told["freehold.request"] == answer.headers["x-freehold-request"]
    assert last.start_time_unix_nano < last.end_time_unix_nano
    assert sent["traceparent"] in {f"00-{trace}-{span.span_id.hex()}-01" for span in clients}
    failed = [span for span in clients if span.status.code == 2]
    assert {attributes(span)["error.type"] for span in failed} <= {"unavailable.engine_lost"}
    assert {group["service.name"] for group in watched.collector.resources} == {"freehold"}
    assert {each["authorization"] for each in watched.collector.headers} == {"collector-token"}


def test_the_callers_decision_not_to_be_traced_holds(watched: Watched) -> None:
    quiet, kept = "b" * 32, "c" * 32
    assert watched.ask(headers={"traceparent": f"00-{quiet}-{SPAN}-00"}).status == 200
    assert watched.engine.headers[-1]["traceparent"].startswith(f"00-{quiet}-")
    assert watched.engine.headers[-1]["traceparent"].endswith("-00")
    assert watched.ask(headers={"traceparent": f"00-{kept}-{SPAN}-01"}).status == 200
    eventually(lambda: len(watched.collector.of(kept)) == 2, "the other one")
    assert watched.collector.of(quiet) == []


@pytest.mark.parametrize(
    "hostile",
    [
        "", "00", "garbage", "00-" + "0" * 32 + f"-{SPAN}-01", f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01-x", "00-" + "f" * 20_000,
        "%00%0d%0a", "\t", "\u00e9",
    ],
)  # fmt: skip
def test_a_hostile_trace_is_not_there(watched: Watched, hostile: str) -> None:
    answer = watched.ask(headers={"traceparent": hostile, "tracestate": hostile})
    assert answer.status == 200
    record = _record(watched, answer)
    assert re.fullmatch(r"[0-9a-f]{32}", record["trace"])
    assert record["trace"] not in hostile.lower()
    sent = watched.engine.headers[-1]
    assert sent["traceparent"].startswith(f"00-{record['trace']}-")
    assert "tracestate" not in sent


def test_the_collector_gets_the_metrics_of_the_conventions(watched: Watched) -> None:
    asked = watched.numbers("gen_ai_server_request_duration_seconds_count")

    def arrived() -> Any:
        metric = watched.collector.metrics.get("gen_ai.server.request.duration")
        points = metric.histogram.data_points if metric is not None else []
        return metric if sum(point.count for point in points) >= asked > 0 else None

    metric = eventually(arrived, "metrics")
    assert metric.unit == "s"
    assert metric.histogram.aggregation_temporality == 2
    point = next(
        point for point in metric.histogram.data_points
        if attributes(point).get("gen_ai.request.model") == "far"
    )  # fmt: skip
    assert sum(point.bucket_counts) == point.count
    assert list(point.explicit_bounds)[:2] == [0.01, 0.02]
    assert attributes(point)["gen_ai.provider.name"] == "freehold"
    assert set(watched.collector.metrics) == {
        "gen_ai.server.request.duration", "gen_ai.server.time_to_first_token",
        "gen_ai.server.time_per_output_token", "gen_ai.client.token.usage",
    }  # fmt: skip


def test_the_log_has_a_line_a_request_and_an_error(watched: Watched, house: House) -> None:
    answer = watched.ask()
    (line,) = _lines(watched.house, "far", answer)
    record = _record(watched, answer)
    for name in ("id", "trace", "span", "principal", "key", "deployment", "replica", "status"):
        assert line[name] == record[name], name
    assert (line["level"], line["outcome"], line["tokens_out"]) == ("info", "ok", 2)
    assert line["ms"] == record["total_ms"]
    answer = watched.house.chat()
    (line,) = _lines(watched.house, "smol", answer)
    assert line["digest"] == _record(watched, answer)["digest"]
    # An error is written also where requests are not.
    quiet, loud = house.chat(), house.chat(model="nothing")
    assert _lines(house, None, quiet) == []
    (line,) = _lines(house, None, loud)
    assert (line["level"], line["error"]) == ("warning", "missing.deployment")
    assert line["id"] == loud.error["id"]


def test_no_text_of_anybody_is_shown(watched: Watched) -> None:
    watched.ask()
    watched.house.chat(messages=[{"role": "user", "content": SECRET}], stream=True)
    page = watched.house.call("GET", "/metrics").body
    logs = b"".join(p.read_bytes() for p in (watched.house.home / "logs").glob("gateway*"))
    for shown in (page, logs, *watched.collector.raw):
        assert SECRET.encode() not in shown
        assert SECRET[::-1].encode() not in shown
    assert watched.house.key.encode() not in page + logs + b"".join(watched.collector.raw)


def test_without_control_the_rest_is_still_shown(watched: Watched) -> None:
    before = watched.numbers("freehold_requests_total", deployment="far")
    watched.house.kill_control()
    assert watched.ask().status == 200
    assert watched.numbers("freehold_process_up", process="control") == 0
    assert watched.numbers("freehold_process_up") == 2
    names = {name for name, _ in watched.samples()}
    assert not names & {"freehold_replicas", "freehold_memory_planned_bytes", "freehold_ready"}
    assert watched.numbers("freehold_requests_total", deployment="far") == before + 1
    watched.house.start()
    assert watched.numbers("freehold_process_up") == 3
    assert watched.numbers("freehold_requests_total", deployment="far") >= before + 1
    eventually(lambda: watched.numbers("freehold_replicas", state="ready") == 4, "replicas")


def test_an_ill_collector_is_no_concern_of_a_request(watched: Watched) -> None:
    for ailment in ("refuses", "hangs"):
        watched.collector.ailment = ailment
        asked = watched.collector.asked
        assert {watched.ask().status for _ in range(10)} == {200}
        eventually(lambda asked=asked: watched.collector.asked > asked, "it was asked")
        assert watched.ask().status == 200
    assert watched.house.stop() == 0


def test_without_the_sdk_the_start_says_what_to_install(new_house: Any, tmp_path: Path) -> None:
    (tmp_path / "hidden" / "opentelemetry").mkdir(parents=True)
    (tmp_path / "hidden" / "opentelemetry" / "__init__.py").touch()
    house = new_house(settings='[telemetry]\nendpoint = "http://127.0.0.1:4318"\n', empty=True)
    house.environment = {"PYTHONPATH": str(tmp_path / "hidden")}
    told = house.run_cli("up", "--no-starter", "--port", "0")
    assert told.returncode == 1
    assert "pip install 'freehold[otel]'" in told.stderr
    assert len(told.stderr.strip().splitlines()) == 1


def _quietly(watched: Watched, **fields: Any) -> int | None:
    """Ask; None when the gateway died over it."""
    try:
        return int(watched.ask(**fields).status)
    except OSError:
        return None


def _record(watched: Watched, answer: Any) -> dict[str, Any]:
    (record,) = watched.house.audit(id=answer.headers["x-freehold-request"])
    return record


def _lines(house: House, deployment: str | None, answer: Any = None) -> list[dict[str, Any]]:
    lines = [
        json.loads(line)
        for path in (house.home / "logs").glob("gateway-*.log")
        for line in path.read_text().splitlines()
    ]
    wanted = answer.headers["x-freehold-request"] if answer is not None else None
    return [
        line for line in lines
        if (deployment is None or line.get("deployment") == deployment)
        and (wanted is None or line.get("id") == wanted)
    ]  # fmt: skip


def _expressions(path: Path) -> str:
    text = path.read_text()
    if path.suffix == ".json":
        panels = json.loads(text)["panels"]
        return "\n".join(t["expr"] for p in panels for t in p.get("targets", ()))
    return re.sub(r"(?m)^\s*(#|- record:|- name:|description:|summary:).*$", "", text)
