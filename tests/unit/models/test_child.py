"""Children that work on models: what they say, how they end, and whom they let go first."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from freehold.errors import Unavailable
from freehold.models.child import Ended, ask, below


class Order(msgspec.Struct, frozen=True):
    """What the children of these tests are told."""

    text: str


def asked(code: str, text: str = "x", progress: Any = lambda *_: None) -> dict[str, Any] | Ended:
    with tempfile.TemporaryFile() as log:
        return ask([sys.executable, "-c", code], Order(text), log, progress, 1000)


def test_heavy_work_runs_below_everything_else() -> None:
    code = "import os; print(os.nice(0))"
    ran = subprocess.run(
        below([sys.executable, "-c", code]), capture_output=True, text=True, check=True
    )
    assert int(ran.stdout) == min(19, os.nice(0) + 10)


def test_a_child_hears_its_order_tells_progress_and_answers() -> None:
    heard: list[tuple[str, int, int]] = []
    code = (
        "import json, sys; given = json.load(sys.stdin)\n"
        "print(json.dumps({'stage': 'measure', 'share': 0.5}), flush=True)\n"
        "import time; time.sleep(0.1)\n"
        "print(json.dumps({'answer': given['text']}), flush=True); time.sleep(60)"
    )
    assert asked(code, "bread", lambda *told: heard.append(told)) == {"answer": "bread"}
    assert heard[0] == ("start", 0, 1000)
    assert heard[-1] == ("measure", 500, 1000)


@pytest.mark.parametrize("text", ["x", "x" * 1_000_000])  # the second does not fit into a pipe
def test_a_child_that_ends_without_an_answer_has_last_words(text: str) -> None:
    code = "import sys; sys.stderr.write('first\\nno memory\\n'); sys.exit(3)"
    assert asked(code, text) == Ended(3, "first no memory")


def test_whoever_stops_waiting_ends_the_child(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    code = (
        f"import os, pathlib, time; pathlib.Path({str(noted)!r}).write_text(str(os.getpid()))\n"
        "time.sleep(60)"
    )

    def stop(*_: object) -> None:
        if noted.exists() and noted.read_text():
            raise Unavailable("unavailable.cancelled", "enough")

    begun = time.monotonic()
    with pytest.raises(Unavailable, match="enough"):
        asked(code, progress=stop)
    assert time.monotonic() - begun < 30
    with pytest.raises(ProcessLookupError):
        os.kill(int(noted.read_text()), 0)
