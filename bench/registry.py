"""The registry at size: what a family takes, and how fast models come in and go out.

    python -m bench.registry [--model FILE.gguf] [--rounds N]

Beside MLflow's ``log_artifact`` of the same file, in an environment of its own. Rounds alternate.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.family import quants
from bench.peers import _venv
from bench.stage import WORK, catalog_model
from freehold.store.blobs import Blobs

MODEL = "qwen2.5-coder-1.5b-instruct"
MLFLOW = "mlflow-skinny>=3,<4"
LOG = """
import resource, sys, time, mlflow
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("import")
began = time.perf_counter()
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with mlflow.start_run():
    mlflow.log_artifact(sys.argv[2])
print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def main() -> None:
    """Run it alone and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help=f"weights [{MODEL}]")
    parser.add_argument("--rounds", type=int, default=3)
    print(json.dumps(registry(parser.parse_args()), indent=1))


def registry(given: argparse.Namespace) -> dict[str, Any]:
    """Import a family, pack it, load a packed one; import beside MLflow."""
    WORK.mkdir(exist_ok=True)
    source = given.model or catalog_model(MODEL)
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        found: dict[str, Any] = {"file_megabytes": round(source.stat().st_size / 1e6)}
        found["imports"] = imports(source, Path(folder), given.rounds)
        print(json.dumps(found), file=sys.stderr)
        found["family"] = family(source, Path(folder))
        return found


def family(source: Path, folder: Path) -> dict[str, Any]:
    """Return what a family of quantisations takes, whole and packed."""
    (WORK / "family").mkdir(exist_ok=True)
    made = quants(source, WORK / "family")
    home = folder / "family"
    for path in made.values():
        _cli(home, "model", "import", str(path), "--name", "family")
    before = _cli(home, "model", "storage")["storage"]
    begun = time.perf_counter()
    packed = _cli(home, "model", "gc", "--pack-after", "0")
    seconds = time.perf_counter() - begun
    after = _cli(home, "model", "storage")["storage"]
    _cli(home, "model", "verify", "--all")
    found = {
        "versions": list(made),
        "whole_megabytes": round(before["stored"] / 1e6),
        "packed_megabytes": round(after["stored"] / 1e6),
        "saved": round(1 - after["stored"] / before["stored"], 3),
        "megabytes_a_second_packing": round(before["stored"] / 1e6 / seconds),
        "versions_packed": sum(each["packed"] for each in packed["packing"]),
    }
    digest = packed["packing"][0]["digest"]
    put, copied = _assemble(home, digest), _copied(source, folder)
    shutil.rmtree(home)
    return found | {
        "seconds_to_put_one_together": round(put, 2),
        "seconds_to_copy_and_hash_one": round(copied, 2),
    }


def imports(source: Path, folder: Path, rounds: int) -> dict[str, Any]:
    """Return seconds and memory of an import, ours and MLflow's, in turns."""
    ours: list[tuple[float, int]] = []
    theirs: list[tuple[float, int]] = []
    python = _venv("mlflow", MLFLOW) / "python"
    for number in range(rounds):
        home = folder / f"home-{number}"
        command = [sys.executable, "-m", "freehold", "--home", str(home), "model", "import"]
        ours.append(_peak([*command, str(source), "--name", "m"]))
        shutil.rmtree(home)
        store = folder / f"mlflow-{number}"
        ran = subprocess.run(
            [python, "-c", LOG, f"file://{store}", str(source)],
            capture_output=True, text=True, cwd=folder, check=False,
            env={**os.environ, "MLFLOW_ALLOW_FILE_STORE": "true"},
        )  # fmt: skip
        if ran.returncode:
            print(ran.stderr[-2000:], file=sys.stderr)
            continue
        seconds, memory = ran.stdout.split()[-2:]
        theirs.append((float(seconds), int(memory) * 1024))
        shutil.rmtree(folder / "mlruns", ignore_errors=True)
    found: dict[str, Any] = _told(ours)
    if theirs:
        found |= {f"mlflow_{name}": value for name, value in _told(theirs).items()}
        found["times_mlflow"] = round(
            statistics.median(s for s, _ in ours) / statistics.median(s for s, _ in theirs), 2
        )
    return found


def _told(runs: list[tuple[float, int]]) -> dict[str, Any]:
    return {
        "seconds": round(statistics.median(seconds for seconds, _ in runs), 2),
        "resident_megabytes": round(max(memory for _, memory in runs) / 1e6),
    }


def _assemble(home: Path, digest: str) -> float:
    blobs = Blobs(home / "blobs")
    begun = time.perf_counter()
    blobs.path(digest)
    return time.perf_counter() - begun


def _copied(source: Path, folder: Path) -> float:
    blobs = Blobs(folder / "copied")
    begun = time.perf_counter()
    blobs.add(source, move=False)
    seconds = time.perf_counter() - begun
    shutil.rmtree(folder / "copied")
    return seconds


def _cli(home: Path, *arguments: str) -> Any:
    command = [sys.executable, "-m", "freehold", "--home", str(home), *arguments, "--json"]
    ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return json.loads(ran.stdout)


def _peak(command: list[str]) -> tuple[float, int]:
    begun = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, command
    return time.perf_counter() - begun, usage.ru_maxrss * 1024


if __name__ == "__main__":
    main()
