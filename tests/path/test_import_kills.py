"""``kill -9`` at every stage of an import: afterwards there is a whole version, or none."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from freehold.store.blobs import measure

STAGES = [("scan", 0.0), ("store", 0.0), ("store", 0.1), ("end", 0.0)]
"""A stage, and how many seconds after it is told the process is killed."""


def freehold(home: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "freehold", "--home", str(home), *arguments]


def told(home: Path, *arguments: str) -> Any:
    ran = subprocess.run(
        freehold(home, *arguments, "--json"), capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def killed_at(home: Path, weights: Path, stage: str, later: float) -> None:
    """Begin an import and kill it once it tells that it is at a stage, or after its last word."""
    child = subprocess.Popen(
        freehold(home, "model", "import", str(weights), "--name", "smol"),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    with child, child.stdout:
        for line in child.stdout:
            if f": {stage}" in line or (stage == "end" and "imported" in line):
                threading.Timer(later, child.kill).start()
                time.sleep(later)
                break
        child.kill()


@pytest.mark.parametrize(("stage", "later"), STAGES)
def test_a_version_is_whole_or_not_there(
    tmp_path: Path, weights: Path, stage: str, later: float
) -> None:
    home = tmp_path / "home"
    killed_at(home, weights, stage, later)
    for blob in (home / "blobs" / "sha256").glob("??/*"):
        assert measure(blob)[0] == blob.name
    is_there = bool(told(home, "model", "list"))
    assert is_there or stage != "end"
    made = told(home, "model", "import", str(weights), "--name", "smol")
    assert (made["version"], made["new"]) == (1, not is_there)
    kept = home / "blobs" / "sha256" / made["digest"][:2] / made["digest"]
    assert measure(kept) == measure(weights)
    assert list((home / "blobs" / "incoming").iterdir()) == []
    assert not list((home / "scratch").glob("*/*"))
