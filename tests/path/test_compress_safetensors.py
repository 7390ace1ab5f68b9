"""Compressing a checkpoint in safetensors through the command line, by llm-compressor."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import make_checkpoint
from tests.house import House
from tests.path.test_compress import TEXT, scratch

PYTHON = os.environ.get("FREEHOLD_LLMCOMPRESSOR", "")


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, size in (("HIDDEN", 128), ("INNER", 256), ("HEAD", 32)):
        monkeypatch.setattr(make_checkpoint, name, size)
    return make_checkpoint.decoder("llama3", 3).save(tmp_path / "ck")


def test_without_llm_compressor_one_error_tells_both_ways_on(
    new_house: Callable[..., House], checkpoint: Path
) -> None:
    house = new_house(empty=True).start()
    house.cli("model", "import", str(checkpoint), "--name", "ck")
    ran = house.run_cli("model", "compress", "ck")
    assert ran.returncode == 1
    assert "pip install 'llmcompressor" in ran.stderr
    assert "convert it to GGUF" in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert scratch(house) == []
    wrong = house.run_cli("model", "compress", "ck", "--compressor", "native")
    assert "ck:1 is safetensors, and compressor.native takes gguf" in wrong.stderr
    none = house.run_cli("model", "compress", "ck", "--compressor", "nobody")
    assert "there is llmcompressor, native" in none.stderr


def test_a_checkpoint_becomes_smaller_with_lineage_report_and_gate(
    new_house: Callable[..., House], checkpoint: Path, tmp_path: Path
) -> None:
    if not PYTHON:
        pytest.skip("NOT TESTED HERE: FREEHOLD_LLMCOMPRESSOR names no Python with llm-compressor")
    settings = f'[compress]\nllmcompressor = "{PYTHON}"\n'
    house = new_house(empty=True, settings=settings).start()
    house.cli("model", "import", str(checkpoint), "--name", "ck")
    (tmp_path / "text.txt").write_text(TEXT)
    text = ("--calibration", str(tmp_path / "text.txt"))
    done = house.json("model", "compress", "ck", "--max-loss", "100%", *text)
    assert done["promoted"], done["reasons"]
    assert done["bytes_after"] < 0.6 * done["bytes_before"]
    assert 0 < done["kl"] < 1
    shown = house.json("model", "show", "ck")
    parent, child = shown["versions"]
    assert shown["aliases"]["production"] == child["number"] == 2
    assert child["lineage"] == ["ck:1"]
    assert child["format"] == "safetensors"
    assert child["manifest"]["quantisation"] in ("W4A16", "W8A8")
    assert child["manifest"]["parameters"] >= parent["manifest"]["parameters"]
    held = {a["name"]: a["digest"] for a in parent["artifacts"]}
    kept = {a["name"]: a["digest"] for a in child["artifacts"]}
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert kept[name] == held[name]
    report = house.call("GET", done["report"]).json
    assert report["compressor"] == "llmcompressor"
    assert report["method"].startswith("llm-compressor, ")
    assert len(report["measured"]["line"]) == len(report["measured"]["seconds"])
    page = tmp_path / "report.html"
    assert "divergence" in house.cli("model", "report", "ck:2", "--page", str(page))
    assert "not measured alone" in page.read_text()
    assert scratch(house) == []
    house.cli("model", "verify", "ck:2")
    # What is over the loss is kept and not promoted; what is quantised is not quantised again.
    strict = house.json("model", "compress", "ck:1", "--target-size", "0.4", *text)
    assert strict["promoted"] is False
    assert any("over 0.0500" in reason for reason in strict["reasons"]), strict
    again = house.run_cli("model", "compress", "ck:2", *text)
    assert "already: take the original" in again.stderr
    # What engines here run stays what they run.
    house.cli("model", "convert", "ck:1", "--type", "f16")
    house.cli("model", "promote", "ck:4")
    loose = house.json("model", "compress", "ck:1", "--max-loss", "99%", *text)
    assert loose["promoted"] is False
    assert any("another format" in reason for reason in loose["reasons"])
    assert house.json("model", "show", "ck")["aliases"]["production"] == 4
