"""The child: killed at every stage, on a full disk, and what it leaves."""

import errno
import json
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from freehold.models.compress.order import Order
from freehold.models.gguf import read_header
from tests.make_model import model

LINE = "Number {n}: the ferry left the quay at dawn with {n} crates of apples and one passenger."
TEXTS = tuple(" ".join(LINE.format(n=n * 7 + k) for k in range(9)) for n in range(6))
STAGES = (
    "reference", "stand-in", "importance", "errors", "sensitivity", "build", "judge 1",
    "cache Q8_0",
)  # fmt: skip


@pytest.fixture(scope="module")
def source(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model(weights, tmp_path_factory.mktemp("worker") / "tiny.gguf", tied=False)


def order(source: Path, scratch: Path) -> bytes:
    scratch.mkdir(exist_ok=True)
    return msgspec.json.encode(
        Order(source=str(source), scratch=str(scratch), loss=0.2, threads=2, learn=TEXTS[:4],
              judge=TEXTS[4:])
    )  # fmt: skip


def child(
    order: bytes, until: str | None = None, limit: Callable[[], None] | None = None
) -> dict[str, Any]:
    """Run a child to its end, or kill it as soon as it says the stage; return its last line."""
    running = subprocess.Popen(
        [sys.executable, "-m", "freehold.models.compress.worker"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=limit,
    )  # fmt: skip
    assert running.stdin is not None
    assert running.stdout is not None
    last: dict[str, Any] = {}
    with running, running.stdout as lines:
        running.stdin.write(order)
        running.stdin.close()
        for line in lines:
            last = json.loads(line)
            if until is not None and last.get("stage") == until:
                running.kill()
                break
    if until is not None:
        assert running.returncode == -signal.SIGKILL, f"{until} was never said"
    return last


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found: dict[str, Any] = child(order(source, tmp_path_factory.mktemp("calm")))["measured"]
    return found


def same(found: dict[str, Any], other: dict[str, Any]) -> bool:
    """Say whether two compressions came to the same mixture and the same loss.

    Which context takes which text is chance, and so is the last digit of sums.
    """
    types = [[(row["name"], row["after"]) for row in each["tensors"]] for each in (found, other)]
    return types[0] == types[1] and found["loss"] == pytest.approx(other["loss"], rel=0.02)


def test_killed_at_every_stage_it_comes_to_the_same(
    source: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    asked = order(source, tmp_path / "scratch")
    kept: dict[str, int] = {}
    for stage in STAGES:
        child(asked, until=stage)
        # What has a name is whole, and was not made again.
        for path in (tmp_path / "scratch").glob("*.gguf"):
            read_header(path)
        for path in (tmp_path / "scratch").glob("*.json"):
            json.loads(path.read_bytes())
        now = {
            name: (tmp_path / "scratch" / name).stat().st_mtime_ns
            for name in ("stand-in.gguf", "importance.json")
            if (tmp_path / "scratch" / name).exists()
        }
        assert kept.items() <= now.items(), stage
        kept = now
    assert len(kept) == 2
    assert same(child(asked)["measured"], undisturbed)
    left = {path.name for path in (tmp_path / "scratch").iterdir()}
    assert "compressed.gguf" in left
    assert not {name for name in left if "partial" in name or "logp" in name}


def test_the_experts_of_a_mixture_become_smaller_like_all_else(
    weights: Path, tmp_path: Path
) -> None:
    source = model(weights, tmp_path / "experts.gguf", experts=4)
    found = child(order(source, tmp_path / "scratch"))["measured"]
    rows = {row["name"]: row for row in found["tensors"]}
    for role in ("gate", "up", "down"):
        row = rows[f"blk.1.ffn_{role}_exps.weight"]
        assert row["bytes_after"] < 0.6 * row["bytes_before"], row
        assert row["loss"] > 0
    assert rows["blk.1.ffn_gate_inp.weight"]["after"] == "F32"  # everything depends on it
    assert found["bytes_after"] < 0.5 * found["bytes_before"]


PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-m", "freehold.models.compress.worker"],
                         stdin=subprocess.PIPE)
child.stdin.write(sys.stdin.buffer.read())
child.stdin.close()
time.sleep(600)
"""


def test_it_ends_with_its_parent(weights: Path, tmp_path: Path) -> None:
    """Whoever goes on in the next life must not wait until a stage is over."""
    source = model(weights, tmp_path / "larger.gguf", tokens=24_000)
    asked = order(source, tmp_path / "scratch")
    argv = [sys.executable, "-c", PARENT]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.write(asked)
        parent.stdin.close()
        assert b"stage" in parent.stdout.readline()
        parent.kill()
        # Its own end of the pipe is the child's: it ends when the child does.
        rest = parent.stdout.read()
    assert b"measured" not in rest
    assert not (tmp_path / "scratch" / "measured.json").exists()


@pytest.mark.parametrize(
    ("stage", "most"),
    [("reference", 100_000), ("predictions", 900_000), ("build", 100_000)],
)
def test_a_full_disk_is_an_error_at_any_stage_and_nothing_is_lost(
    source: Path, undisturbed: dict[str, Any], tmp_path: Path, stage: str, most: int
) -> None:
    asked, scratch = order(source, tmp_path / "scratch"), tmp_path / "scratch"
    if stage == "build":
        child(asked, until=stage)
    before = {path.name for path in scratch.iterdir() if path.suffix != ".partial"}
    limits = (most, most)
    last = child(asked, limit=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits))
    assert last["error"]["kind"] == "os", last
    assert last["error"]["code"] == str(errno.EFBIG)
    left = {path.name for path in scratch.iterdir()}
    assert before <= left
    assert "compressed.gguf" not in left
    assert same(child(asked)["measured"], undisturbed)
