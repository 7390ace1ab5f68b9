"""The gate, the aim, and the page."""

import re

import msgspec
import pytest

from freehold.models.compress.order import Measured, Point, TensorRow
from freehold.models.compress.page import page
from freehold.models.compress.report import Report, Task, gate, quality
from freehold.models.compress.request import LOSS, Hardware, Request, aim
from freehold.models.intervals import Interval
from freehold.models.manifest import Manifest, Tokenizer


def measured(**fields: object) -> Measured:
    row = TensorRow(
        name="blk.0.<b>", shape=(4, 4), before="F16", after="Q4_0", bytes_before=32, bytes_after=9,
        loss=0.001,
    )  # fmt: skip
    given = {
        "bytes_before": 1000, "bytes_full": 1000, "bytes_after": 400, "dequantised": False,
        "tied": False, "metric": "kl", "loss": Interval(0.008, 0.007, 0.009), "foreseen": 0.008,
        "tokens_judged": 100, "texts_learned": 3, "tensors": (row,),
        "line": (Point(300, 0.1), Point(500, 0.01), Point(900, 0.0001)),
        "perplexity_before": 10.0, "perplexity_after": 10.1,
        "perplexity": Interval(0.01, -0.01, 0.03), "agreement": Interval(0.95, 0.94, 0.96),
        **fields,
    }  # fmt: skip
    return Measured(**given)  # type: ignore[arg-type]


def task(change: Interval) -> Task:
    half = Interval(0.5, 0.4, 0.6)
    return Task(name="sums", cases=50, before=half, after=half, change=change, verdict="undecided")


def test_within_the_loss_passes() -> None:
    found = gate(measured(), 0.01, ())
    assert found.passed
    assert "0.0090" in found.reasons[0]


@pytest.mark.parametrize(
    ("fields", "target", "word"),
    [
        ({"loss": Interval(0.009, 0.007, 0.011)}, None, "over 0.0100"),
        ({"perplexity": Interval(0.03, 0.02, 0.04)}, None, "perplexity"),
        ({}, 399, "smallest"),
    ],
)
def test_each_wall_stands(fields: dict[str, object], target: int | None, word: str) -> None:
    found = gate(measured(**fields), 0.01, (), target)
    assert not found.passed
    assert any(word in reason for reason in found.reasons)


def test_a_task_stands_in_the_way_only_beyond_doubt() -> None:
    assert gate(measured(), 0.01, (task(Interval(-0.1, -0.25, 0.05)),)).passed
    assert not gate(measured(), 0.01, (task(Interval(-0.2, -0.3, -0.1)),)).passed


def manifest(parameters: int) -> Manifest:
    words = Tokenizer(model="gpt2", pre=None, tokens=32_000, sha256=None)
    return Manifest(
        architecture="llama", task="chat", name=None, parameters=parameters, context=4096,
        layers=32, width=4096, heads=32, kv_heads=8, head_key=128, head_value=128,
        quantisation="F16", bits_per_weight=16.0, tokenizer=words, chat_template="x", licence=None,
        base_models=(),
    )  # fmt: skip


def test_the_hardware_decides_where_nothing_is_said() -> None:
    large = Hardware(memory=64 << 30, cores=8)
    found = aim(Request(), manifest(7_000_000_000), 14_000_000_000, large)
    assert (found.loss, found.target) == (LOSS, None)
    small = Hardware(memory=8 << 30, cores=4)
    found = aim(Request(), manifest(7_000_000_000), 14_000_000_000, small)
    assert found.target is not None
    assert 2_000_000_000 < found.target < 5_700_000_000
    assert "4 cores" in found.why


def test_what_is_asked_for_is_aimed_at() -> None:
    machine = Hardware(memory=1 << 30, cores=1)
    found = aim(Request(max_loss=0.02), manifest(10**9), 2 * 10**9, machine)
    assert (found.loss, found.target) == (0.02, None)
    found = aim(Request(target_size=0.5, max_loss=0.1), manifest(10**9), 2 * 10**9, machine)
    assert (found.loss, found.target) == (0.1, 10**9)


def test_the_page_is_whole_escaped_and_needs_nothing_else() -> None:
    report = Report(
        model="m", parent=1, parent_digest="a" * 64, version=2, digest="b" * 64, made=0.0,
        limit=0.01, target=None, chosen="<script>", calibration="x & y", measured=measured(),
        tasks=(task(Interval(0.0, -0.1, 0.1)),), reasons=("<b>",),
    )  # fmt: skip
    html = page(report)
    assert "<script" not in html
    assert "blk.0.&lt;b&gt;" in html
    assert "x &amp; y" in html
    assert "<svg" in html
    assert not re.search(r"(src|href)=|https?:", html)
    assert "not promoted" in html
    text = msgspec.json.encode(report).decode()
    found = quality(text)
    assert found is not None
    assert found["loss"] == 0.008
    assert found["tasks.sums"] == 0.0
    assert quality(None) is None
