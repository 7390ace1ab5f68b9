"""What every compressor promises: ours always, llm-compressor where there is one.

``FREEHOLD_LLMCOMPRESSOR`` names an interpreter that has llm-compressor: it takes 6 GB, so nothing
here installs it.
"""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from freehold.builtin.compressor_llmcompressor import LLMCompressor, laid_out
from freehold.errors import Invalid, Missing, Unavailable
from freehold.models.compress import calibration
from freehold.models.compress.compressor import Commission, Compressor, Made, choose
from freehold.models.compress.launch import Place
from freehold.models.compress.report import gate
from freehold.models.compress.request import Hardware, Request
from freehold.models.identify import identify
from freehold.models.registry import Version
from freehold.plugins import open_kind
from freehold.settings import Compress, Plugins
from freehold.store.blobs import measure
from tests import make_checkpoint
from tests.house import eventually
from tests.make_model import model
from tests.make_onnx import onnx
from tests.unit.models.test_quarantine import Shop

PYTHON = os.environ.get("FREEHOLD_LLMCOMPRESSOR", "")
LINE = "Number {n}: the ferry left the quay at dawn with {n} crates of apples and one passenger."
TEXT = "\n\n".join(" ".join(LINE.format(n=n * 7 + k) for k in range(6)) for n in range(9))
TASK = '{"prompt": "What is 2 + 2?", "answer": "4", "tokens": 2}'
KINDS = sorted(open_kind("compressor", Plugins()))


class Bench:
    """A compressor, and a version for it."""

    def __init__(self, shop: Shop, compressor: Compressor, source: Path) -> None:
        self.shop, self.compressor = shop, compressor
        self.version = shop.bring(source)
        self.scratch = shop.place / "work"
        self.scratch.mkdir()
        # Ours are asked of GGUF; elsewhere there is nobody to ask.
        self.tasks = TASK if "gguf" in compressor.formats else None

    def commission(self, **asked: object) -> Commission:
        return Commission(
            version=self.version,
            files={a.name: self.shop.workshop.blobs.path(a.digest) for a in self.version.artifacts},
            request=Request(calibration=TEXT, tasks=self.tasks, **asked),  # type: ignore[arg-type]
            scratch=self.scratch,
            texts=calibration.parse(TEXT.encode(), "test"),
            hardware=Hardware(memory=8 << 30, cores=1),
            place=Place(room=8 << 30, context=512, slots=1),
        )

    def compress(self, **asked: object) -> Made:
        return self.compressor.compress(self.commission(**asked), lambda *_: None)


@pytest.fixture(params=KINDS)
def bench(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Bench]:
    if request.param == "llmcompressor" and not PYTHON:
        pytest.skip("NOT TESTED HERE: FREEHOLD_LLMCOMPRESSOR names no Python with llm-compressor")
    kind = open_kind("compressor", Plugins())[request.param]
    compressor: Compressor = kind(Compress(llmcompressor=PYTHON))
    if "gguf" in compressor.formats:
        source = model(weights, tmp_path / "tiny.gguf")
    else:
        # Scales are for 128 weights of a row: nothing smaller is whole.
        for name, size in (("HIDDEN", 128), ("INNER", 256), ("HEAD", 32)):
            monkeypatch.setattr(make_checkpoint, name, size)
        source = make_checkpoint.decoder("llama3", 3).save(tmp_path / "tiny")
    shop = Shop(tmp_path)
    yield Bench(shop, compressor, source)
    shop.database.close()


def test_it_makes_a_smaller_model_of_the_same_kind_and_measures_what_that_costs(
    bench: Bench,
) -> None:
    before = {name: measure(path)[0] for name, path in bench.commission().files.items()}
    bench.compressor.check(bench.version, bench.commission().request)
    made = bench.compress(max_loss=1.0)
    assert {n: measure(p)[0] for n, p in bench.commission().files.items()} == before
    assert all(path.is_relative_to(bench.scratch) or name in before
               for name, path in made.files.items())  # fmt: skip
    found = identify(made.files)
    assert found.format in bench.compressor.formats
    assert found.manifest.tokenizer == bench.version.manifest.tokenizer
    assert found.manifest.architecture == bench.version.manifest.architecture
    assert found.manifest.task == bench.version.manifest.task
    told = made.measured
    assert told.bytes_before == bench.version.row.bytes
    assert told.bytes_after == sum(path.stat().st_size for path in made.files.values())
    assert told.bytes_after < told.bytes_before
    assert told.metric == "kl"
    assert 0 < told.loss.low <= told.loss.mean <= told.loss.high
    assert told.tokens_judged > 100
    assert made.aim.loss == 1.0
    assert made.method
    names = {row.name for row in told.tensors}
    assert len(names) > 10
    assert sum(row.bytes_after for row in told.tensors) <= told.bytes_after
    assert {row.after for row in told.tensors} != {row.before for row in told.tensors}
    # What it says of the loss is what the gate judges by.
    limit = told.loss.high
    assert "is within" in gate(told, limit, ()).reasons[0]
    assert "is over" in gate(told, told.loss.low, ()).reasons[0]
    # Asked again it goes on with what is there, and finds the same.
    kept = {name: measure(path)[0] for name, path in made.files.items()}
    again = bench.compress(max_loss=1.0)
    assert {name: measure(path)[0] for name, path in again.files.items()} == kept
    assert again.measured.loss == told.loss


def test_a_size_is_kept_or_the_gate_says_that_it_is_not(bench: Bench) -> None:
    made = bench.compress(target_size=0.6)
    target = int(bench.version.row.bytes * 0.6)
    assert made.aim.target == target
    assert (
        made.measured.bytes_after <= target
        or not gate(made.measured, 1.0, (), made.aim.target).passed
    )


def test_stopped_it_leaves_nothing_running(bench: Bench) -> None:
    def stop(stage: str, _done: int, _total: int) -> None:
        if stage not in ("start", "queued"):
            raise Unavailable("unavailable.stopping", "stopping")

    with pytest.raises(Unavailable, match="stopping"):
        bench.compressor.compress(bench.commission(max_loss=0.5), stop)
    eventually(lambda: not psutil.Process().children(recursive=True), "no child is left", 10)


def test_another_format_or_an_adapter_is_refused_before_any_work(
    bench: Bench, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.onnx").write_bytes(onnx())
    (tmp_path / "other" / "config.json").write_text('{"model_type": "bert"}')
    other = bench.shop.bring(tmp_path / "other", "other")
    with pytest.raises(Invalid) as caught:
        bench.compressor.check(other, Request())
    assert caught.value.code in ("invalid.format", "invalid.task")
    assert not list(bench.scratch.iterdir())


@pytest.mark.parametrize(
    ("python", "says"),
    [
        (lambda _: "", "a Python of its own"),
        (lambda place: str(place / "none"), "cannot be run"),
        (lambda _: "/bin/false", "has no llmcompressor"),
    ],
)
def test_without_llm_compressor_one_error_says_how_to_get_it(
    tmp_path: Path, python: Callable[[Path], str], says: str
) -> None:
    version = _checkpoint(tmp_path)
    compressor = LLMCompressor(Compress(llmcompressor=python(tmp_path)))
    with pytest.raises(Unavailable, match=says) as caught:
        compressor.check(version, Request())
    assert caught.value.code == "unavailable.extra"
    assert "pip install 'llmcompressor" in caught.value.message
    assert "[compress] llmcompressor" in caught.value.message


def test_an_interpreter_that_dies_is_an_error_that_tells_its_last_words(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\n[ "$2" = -c ] && exit 0\necho "no more memory" >&2\nkill -9 $$\n')
    python.chmod(0o755)
    shop = Shop(tmp_path)
    source = make_checkpoint.decoder("llama3").save(tmp_path / "c")
    bench = Bench(shop, LLMCompressor(Compress(llmcompressor=str(python))), source)
    with pytest.raises(Unavailable, match="no more memory") as caught:
        bench.compress()
    assert str(-signal.SIGKILL) in caught.value.message
    shop.database.close()


@pytest.mark.parametrize("name", ["../evil.json", "/evil.json", "a/../../evil.json"])
def test_no_name_of_a_file_leads_out_of_the_scratch(name: str, tmp_path: Path) -> None:
    held = tmp_path / "held"
    held.write_text("{}")
    with pytest.raises(Invalid, match="no name of a file"):
        laid_out({name: held}, tmp_path / "work" / "source")
    assert not (tmp_path / "work" / "evil.json").exists()
    assert not (tmp_path / "evil.json").exists()


def test_who_compresses_is_chosen_by_format_or_by_name(tmp_path: Path, weights: Path) -> None:
    compressors = {
        name: kind(Compress()) for name, kind in open_kind("compressor", Plugins()).items()
    }
    checkpoint = _checkpoint(tmp_path)
    assert choose(checkpoint, Request(), compressors)[0] == "llmcompressor"
    with pytest.raises(Invalid, match=r"compressor\.native takes gguf"):
        choose(checkpoint, Request(compressor="native"), compressors)
    with pytest.raises(Missing, match="there is llmcompressor, native"):
        choose(checkpoint, Request(compressor="nobody"), compressors)
    with pytest.raises(Invalid, match="no compressor here takes that: freehold model convert"):
        choose(checkpoint, Request(), {"native": compressors["native"]})


def _checkpoint(place: Path) -> Version:
    shop = Shop(place)
    found = shop.bring(make_checkpoint.decoder("llama3").save(place / "checkpoint"))
    shop.database.close()
    return found
