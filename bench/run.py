"""The figures, ours beside the peers', written to ``bench/RESULTS.md``: ``make bench``.

    python -m bench.run [PART ...] [--model FILE.gguf] [--rounds N]

Parts: install, answer, memory, gateway, tokens, import, humaneval. Without a name all of them run.
Runs of one part are interleaved with the peer's, and what counts is their ratio. ``gateway`` needs
wrk, nginx and taskset; LiteLLM is installed into ``bench/.work`` by itself. ``humaneval`` takes
about two hours on two cores and resumes where it was stopped.
"""

import argparse
import json
import os
import re
import shutil
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

from bench import humaneval as evaluate
from bench import report
from freehold.models.catalog import read_catalog
from tests.house import House, eventually
from tests.make_gguf import gguf

ROOT = Path(__file__).parents[1]
WORK = ROOT / "bench" / ".work"
LITELLM = "litellm[proxy]<1.109"
PROMPT = [{"role": "user", "content": "Explain how a rainbow comes about, in detail."}]
MOCK = {
    "id": "x", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop",
                 "message": {"role": "assistant", "content": "Hello there, how can I help you?"}}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 9, "total_tokens": 19},
}  # fmt: skip


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
    with _house() as house:
        for _ in range(20):
            house.chat()
        time.sleep(15)
        status = house.call("GET", "/api/status").json
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


def gateway(given: argparse.Namespace) -> dict[str, Any]:
    """Measure what a gateway adds and passes through, against a mock; LiteLLM beside it.

    The gateway has core 0, load and mock the others. Freehold runs as it always does: keys,
    routing, a durable record of every request. LiteLLM has its master key and nothing else.
    """
    missing = [tool for tool in ("wrk", "nginx", "taskset") if not shutil.which(tool)]
    if missing:
        return {"skipped": f"not installed: {', '.join(missing)}"}
    runs: dict[str, list[dict[str, float]]] = {}
    with _mock() as mock, _house(prefix=("taskset", "-c", "0")) as house, _litellm(mock) as peer:
        house.cli("deploy", "--url", f"{mock}/v1", "--as", "m", "--wait")
        house.cli("undeploy", "smol")
        targets = {
            "direct": (mock, "none"),
            "freehold": (house.url, house.key),
            "litellm": (peer["url"], peer["key"]),
        }
        for _ in range(given.rounds):
            for name, (url, key) in targets.items():
                for connections in (1, 32):
                    runs.setdefault(f"{name} c={connections}", []).append(
                        _wrk(url, key, connections)
                    )
        rss = {
            "freehold": round(psutil.Process(house.gateways()[0]).memory_info().rss / 1e6),
            "litellm": round(_tree_rss(peer["pid"]) / 1e6),
        }
    found = {
        name: {key: round(statistics.median(run[key] for run in each), 3) for key in each[0]}
        for name, each in runs.items()
    }
    ours, theirs = found["freehold c=1"], found["litellm c=1"]
    direct = found["direct c=1"]["p50_ms"]
    return {
        "added_p50_ms": {
            "freehold": round(ours["p50_ms"] - direct, 3),
            "litellm": round(theirs["p50_ms"] - direct, 3),
        },
        "ratio_throughput_c32": round(
            found["freehold c=32"]["rps"] / max(found["litellm c=32"]["rps"], 0.001), 1
        ),
        "rss_mb": rss,
        "runs": found,
    }


def tokens(given: argparse.Namespace) -> dict[str, Any]:
    """Compare tokens a second through Freehold with the bare engine, turn by turn."""
    model = given.model or _starter()
    rates: dict[str, list[float]] = {}
    with _house(model) as house, _bare(model) as bare:
        ends = {"freehold": (f"{house.url}/v1", house.key), "bare": (bare["url"], bare["key"])}
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
        model = _catalog_model(name)
        ours, bare = folder / f"{name}-freehold.jsonl", folder / f"{name}-bare.jsonl"
        with _house(model) as house:
            evaluate.run(f"{house.url}/v1", house.key, "smol", ours)
        with _bare(model) as engine:
            evaluate.run(engine["url"], engine["key"], "smol", bare)
        found[name] = evaluate.compare(ours, bare)
    return found


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "install": install,
    "answer": answer,
    "memory": memory,
    "gateway": gateway,
    "tokens": tokens,
    "import": import_,
    "humaneval": humaneval,
}


def _starter() -> Path:
    entry = next(entry for entry in read_catalog().values() if entry.starter)
    kept = ROOT / ".cache" / f"{entry.sha256}.gguf"
    if not kept.exists():
        sys.exit("run make test once: it keeps the starter's weights in .cache")
    return kept


def _catalog_model(name: str) -> Path:
    """Return the weights of a catalog entry; fetched into ``bench/.work`` once."""
    home = WORK / "models"
    freehold = [sys.executable, "-m", "freehold", "--home", home]
    subprocess.run([*freehold, "model", "import", name], check=True, stdout=subprocess.DEVNULL)
    digest = read_catalog()[name].sha256
    return home / "blobs" / "sha256" / digest[:2] / digest


@contextmanager
def _house(model: Path | None = None, prefix: tuple[str, ...] = ()) -> Iterator[House]:
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        house = House(Path(folder) / "home", prefix=prefix)
        house.cli("model", "import", str(model or _starter()), "--name", "smol")
        house.cli("deploy", "smol")
        try:
            yield house.start()
        finally:
            house.close()


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


@contextmanager
def _mock() -> Iterator[str]:
    port, folder = _free_port(), Path(tempfile.mkdtemp(dir=WORK))
    config = folder / "nginx.conf"
    config.write_text(
        f"worker_processes 1; daemon off; pid {folder}/pid; error_log /dev/null;\n"
        "events { worker_connections 1024; }\n"
        "http { access_log off; keepalive_requests 10000000; client_body_temp_path "
        f"{folder}; server {{ listen 127.0.0.1:{port}; location / {{ default_type "
        f"application/json; return 200 '{json.dumps(MOCK)}'; }} }} }}\n"
    )
    child = subprocess.Popen([*_other_cores(), "nginx", "-c", str(config), "-p", str(folder)])
    try:
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: _answers(url), "the mock")
        yield url
    finally:
        child.terminate()
        child.wait()


@contextmanager
def _litellm(mock: str) -> Iterator[dict[str, Any]]:
    venv, port = WORK / "litellm", _free_port()
    if not (venv / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin/pip", "install", "--quiet", LITELLM], check=True)
        (venv / "ready").touch()
    config, key = WORK / "litellm.yaml", f"sk-{'0123456789abcdef' * 2}"
    config.write_text(
        "model_list:\n  - model_name: m\n    litellm_params:\n      model: openai/mock\n"
        f"      api_base: {mock}/v1\n      api_key: x\n"
    )
    environment = {**os.environ, "LITELLM_MASTER_KEY": key, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    command = ["taskset", "-c", "0", venv / "bin/litellm", "--config", config, "--port", str(port),
               "--num_workers", "1"]  # fmt: skip
    with (WORK / "litellm.log").open("wb") as log:
        child = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: _answers(f"{url}/health/liveliness"), "LiteLLM", 240)
        yield {"url": url, "key": key, "pid": child.pid}
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _wrk(url: str, key: str, connections: int) -> dict[str, float]:
    script = WORK / "post.lua"
    script.write_text(
        'wrk.method="POST"; wrk.headers["content-type"]="application/json"\n'
        f'wrk.headers["authorization"]="Bearer {key}"\n'
        'wrk.body=\'{"model":"m","messages":[{"role":"user","content":"hi"}]}\'\n'
        'done=function(s,l,r) io.write(string.format("P50 %f P99 %f BAD %d\\n",'
        "l:percentile(50)/1000,l:percentile(99)/1000,s.errors.status)) end\n"
    )
    ran = subprocess.run(
        [*_other_cores(), "wrk", "-t1", f"-c{connections}", "-d6s", "-s", str(script),
         f"{url}/v1/chat/completions"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = re.search(r"P50 ([\d.]+) P99 ([\d.]+) BAD (\d+)", ran.stdout)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", ran.stdout)
    assert found
    assert rate
    assert found[3] == "0", ran.stdout
    return {"rps": float(rate[1]), "p50_ms": float(found[1]), "p99_ms": float(found[2])}


def _other_cores() -> list[str]:
    last = (os.cpu_count() or 2) - 1
    return ["taskset", "-c", f"1-{last}" if last > 1 else "1"]


def _peak(command: list[str]) -> tuple[float, int]:
    """Run a command; return its seconds and the most memory it had resident, in bytes."""
    begun = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, command
    return time.perf_counter() - begun, usage.ru_maxrss * 1024


def _tree_rss(pid: int) -> int:
    process = psutil.Process(pid)
    return sum(p.memory_info().rss for p in (process, *process.children(recursive=True)))


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except OSError:
        return False


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _bytes(folder: Path) -> int:
    return sum(p.lstat().st_size for p in folder.rglob("*") if not p.is_dir())


if __name__ == "__main__":
    main()
