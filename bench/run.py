"""The figures, ours beside the peers', written to ``bench/RESULTS.md``: ``make bench``.

    python -m bench.run [PART ...] [--model FILE.gguf] [--rounds N]

Without a name all parts run. Runs of one part are interleaved with the peers', and what counts is
their ratio. The gateway's parts (latency, streams, growth) need wrk, nginx, npm and taskset; peers
are installed into ``bench/.work`` by themselves. ``humaneval`` takes two hours on two cores and
resumes where it was stopped.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from bench import compress, gateway, report, scan
from bench import humaneval as evaluate
from bench.balance import balance
from bench.engine import engine
from bench.oci import oci
from bench.registry import registry
from bench.stage import ROOT, WORK, catalog_model, house, starter
from tests.make_gguf import gguf

PROMPT = [{"role": "user", "content": "Explain how a rainbow comes about, in detail."}]


def main() -> None:
    """Run parts and write what they found beside what earlier runs of other parts did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART")
    parser.add_argument("--model", type=Path, help="weights for the part tokens [the starter]")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    unknown = set(given.parts) - set(PARTS)
    if unknown:
        parser.error(f"no part {', '.join(unknown)}: choose {', '.join(PARTS)}")
    WORK.mkdir(exist_ok=True)
    for name in given.parts or PARTS:
        print(f"bench: {name}", file=sys.stderr)
        found = PARTS[name](given)
        report.keep(name, found)
        print(json.dumps(found, indent=1))
    report.write()


def install(_given: argparse.Namespace) -> dict[str, Any]:
    """Install the base into a fresh environment: seconds and bytes."""
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        venv = Path(folder) / "venv"
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        base = _bytes(venv)
        pip = [venv / "bin" / "python", "-m", "pip", "install", "--quiet",
               "--disable-pip-version-check"]  # fmt: skip
        lock = ["--require-hashes", "--only-binary", ":all:", "-r", ROOT / "requirements.lock"]
        subprocess.run([*pip, *lock], check=True)
        subprocess.run([*pip, "--no-deps", "--no-build-isolation", ROOT], check=True)
        seconds = time.perf_counter() - begun
        size = _bytes(venv)
        biggest = sorted(
            ((_bytes(path) / 1e6, path.name) for path in venv.glob("lib/python*/site-packages/*")),
            reverse=True,
        )[:4]
    return {
        "seconds": round(seconds, 1),
        "megabytes": round(size / 1e6, 1),
        "megabytes_of_pip_itself": round(base / 1e6, 1),
        "biggest": {name: round(size, 1) for size, name in biggest},
    }


def answer(given: argparse.Namespace) -> dict[str, Any]:
    """Time ``make run`` from a fresh clone to its printed answer, and a second start."""
    first, second = [], []
    for _ in range(min(3, given.rounds)):
        with tempfile.TemporaryDirectory(dir=WORK) as folder:
            clone = Path(folder) / "clone"
            subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
            first.append(_seconds_to_answer(clone, Path(folder) / "home"))
            second.append(_seconds_to_answer(clone, Path(folder) / "home"))
    return {
        "first_seconds": [round(each, 1) for each in first],
        "second_seconds": [round(each, 1) for each in second],
    }


def _seconds_to_answer(clone: Path, home: Path) -> float:
    begun = time.perf_counter()
    environment = {**os.environ, "FREEHOLD_HOME": str(home)}
    child = subprocess.Popen(
        ["make", "run", "UP_ARGS=--port 0"], cwd=clone, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    assert child.stdout is not None
    seen = ""
    for line in child.stdout:
        seen += line
        if line.startswith("Ctrl-C"):
            break
    seconds = time.perf_counter() - begun
    assert "Paris" in seen, seen
    os.killpg(child.pid, signal.SIGINT)
    child.wait()
    return seconds


def memory(_given: argparse.Namespace) -> dict[str, Any]:
    """Measure control and a gateway, idle for a while after some work."""
    with house(starter()) as freehold:
        for _ in range(20):
            freehold.chat()
        time.sleep(15)
        status = freehold.call("GET", "/api/status").json
        control = psutil.Process(status["control_pid"]).memory_full_info()
        gateway = psutil.Process(status["gateways"][0]["pid"]).memory_full_info()
        planned, resident = status["memory"]["planned"], status["memory"]["resident"]
    return {
        "control_rss_mb": round(control.rss / 1e6, 1),
        "gateway_rss_mb": round(gateway.rss / 1e6, 1),
        "sum_rss_mb": round((control.rss + gateway.rss) / 1e6, 1),
        "sum_pss_mb": round((control.pss + gateway.pss) / 1e6, 1),
        "engine_rss_mb": round(resident / 1e6, 1),
        "engine_planned_mb": round(planned / 1e6, 1),
    }


def tokens(given: argparse.Namespace) -> dict[str, Any]:
    """Compare tokens a second through Freehold with the bare engine, turn by turn."""
    model = given.model or starter()
    rates: dict[str, list[float]] = {}
    with house(model) as freehold, _bare(model) as bare:
        ends = {
            "freehold": (f"{freehold.url}/v1", freehold.key),
            "bare": (bare["url"], bare["key"]),
        }
        for url, key in ends.values():
            _generate(url, key, stream=True)
        for turn in range(given.rounds * 2):
            for stream in (True, False):
                for name in sorted(ends, reverse=bool(turn % 2)):
                    rate = _generate(*ends[name], stream=stream)
                    kind = "streamed" if stream else "whole"
                    rates.setdefault(f"{name} {kind}", []).append(rate)
    medians = {name: round(statistics.median(each), 2) for name, each in rates.items()}
    return {
        "model": model.name,
        "ratio_streamed": round(medians["freehold streamed"] / medians["bare streamed"], 4),
        "ratio_whole": round(medians["freehold whole"] / medians["bare whole"], 4),
        "tokens_per_second": medians,
    }


def import_(given: argparse.Namespace) -> dict[str, Any]:
    """Import a gigabyte: seconds and memory over the bare interpreter."""
    data = WORK / "gigabyte.gguf"
    count = 2**28
    head = gguf(tensors=[("w", [count], 0, 0)], data=b"")
    with data.open("wb") as file:
        file.write(head)
        block = os.urandom(1 << 20)
        for _ in range(count * 4 >> 20):
            file.write(block)
    seconds, resident = [], []
    bare = _peak([sys.executable, "-c", "pass"])[1]
    for _ in range(min(3, given.rounds)):
        with tempfile.TemporaryDirectory(dir=WORK) as home:
            took, peak = _peak(
                [sys.executable, "-m", "freehold", "--home", home, "model", "import", str(data)]
            )
            seconds.append(round(took, 2))
            resident.append(round((peak - bare) / 1e6, 1))
    data.unlink()
    return {"bytes": count * 4, "seconds": seconds, "megabytes_over_interpreter": resident}


def humaneval(_given: argparse.Namespace) -> dict[str, Any]:
    """Solve HumanEval with both sizes of Qwen2.5-Coder, through Freehold and on the bare engine."""
    found: dict[str, Any] = {}
    folder = WORK / "humaneval"
    folder.mkdir(exist_ok=True)
    for name in ("qwen2.5-coder-0.5b-instruct", "qwen2.5-coder-1.5b-instruct"):
        model = catalog_model(name)
        ours, bare = folder / f"{name}-freehold.jsonl", folder / f"{name}-bare.jsonl"
        with house(model) as freehold:
            evaluate.run(f"{freehold.url}/v1", freehold.key, "smol", ours)
        with _bare(model) as engine:
            evaluate.run(engine["url"], engine["key"], "smol", bare)
        found[name] = evaluate.compare(ours, bare)
    return found


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "install": install,
    "answer": answer,
    "memory": memory,
    "latency": gateway.latency,
    "streams": gateway.streams,
    "growth": gateway.growth,
    "start": gateway.start,
    "tokens": tokens,
    "import": import_,
    "balance": balance,
    "registry": registry,
    "engine": engine,
    "scan": lambda _given: scan.measure(),
    "oci": oci,
    "compress": compress.part,
    "humaneval": humaneval,
}


@contextmanager
def _bare(model: Path) -> Iterator[dict[str, str]]:
    child = subprocess.Popen(
        [sys.executable, "-m", "bench.bare_engine", str(model), "--alias", "smol"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    try:
        yield json.loads(child.stdout.readline())
    finally:
        child.kill()
        child.wait()


def _generate(url: str, key: str, *, stream: bool) -> float:
    body = {"model": "smol", "messages": PROMPT, "max_tokens": 200, "temperature": 0,
            "ignore_eos": True, "stream": stream}  # fmt: skip
    request = urllib.request.Request(
        f"{url}/chat/completions", json.dumps(body).encode(),
        {"authorization": f"Bearer {key}", "content-type": "application/json"},
    )  # fmt: skip
    begun = time.perf_counter()
    with urllib.request.urlopen(request) as response:
        response.read()
    return 200 / (time.perf_counter() - begun)


def _peak(command: list[str]) -> tuple[float, int]:
    """Run a command; return its seconds and the most memory it had resident, in bytes."""
    begun = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, command
    return time.perf_counter() - begun, usage.ru_maxrss * 1024


def _bytes(folder: Path) -> int:
    return sum(p.lstat().st_size for p in folder.rglob("*") if not p.is_dir())


if __name__ == "__main__":
    main()
