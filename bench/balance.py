"""Four replicas behind Freehold and behind vllm-router: ``python -m bench.balance``.

The same conversations of several turns, with system prompts that some share (a few are popular),
from concurrent clients, over four llama.cpp engines with two slots and one thread each. Engines are
started anew for every run, so every cache begins empty. Runs are interleaved; ratios are what
counts. vllm-router is installed into ``bench/.work`` by itself. Engines share the machine's
processors here; ``bench/simulate.py`` shows replicas that do not.
"""

import argparse
import http.client
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from bench import simulate
from bench.peers import vllm_router
from bench.stage import ROOT, WORK, starter
from tests.house import House

KEY = "a-key-of-the-bench"
REPLICAS, SLOTS, CONTEXT = 4, 2, 4096
CLIENTS, TALKS, TURNS, ANSWER = 10, 20, 3, 12
SYSTEMS, SYSTEM_WORDS, USER_WORDS = 4, 150, 15
WORDS = re.findall("[a-z]+", (ROOT / "ARCHITECTURE.md").read_text())
Front = Callable[[list[str]], Any]


def main() -> None:
    """Run the engines only, and print what was found; with --only, as much of it as is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", action="append", choices=FRONTS, help="[all]")
    given = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    print(json.dumps(measure(starter(), given.rounds, given.only), indent=1))


def balance(given: argparse.Namespace) -> dict[str, Any]:
    """Serve conversations from four replicas, beside vllm-router's cache-aware policy."""
    found = measure(given.model or starter(), min(2, given.rounds))
    return {**found, "simulated_with_hardware_of_their_own": simulate.measure()}


def measure(model: Path, rounds: int, only: list[str] | None = None) -> dict[str, Any]:
    """Return medians of every front, and the peers' over ours."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in only or FRONTS}
    for turn in range(rounds):
        for name in sorted(runs, reverse=bool(turn % 2)):
            with _engines(model) as urls, FRONTS[name](urls) as (url, key, asked):
                runs[name].append(_drive(url, key, asked))
            print(f"bench: balance: {name}: {runs[name][-1]}", file=sys.stderr)
    medians = {
        name: {key: round(statistics.median(run[key] for run in each), 3) for key in each[0]}
        for name, each in runs.items()
    }
    ours = medians.get("freehold", {})
    ratios = {
        f"ratio_{name}_over_freehold": {
            key: round(theirs[key] / ours[key], 3) for key in theirs if ours.get(key)
        }
        for name, theirs in medians.items()
        if name != "freehold"
    }
    return {**ratios, "medians": medians, "rounds": rounds}


def trace() -> list[list[dict[str, str]]]:
    """Return conversations: a system prompt and what the user says, turn by turn."""
    chance = random.Random(11)
    systems = [_text(chance, SYSTEM_WORDS) for _ in range(SYSTEMS)]
    popular = [1 / (rank + 1) for rank in range(len(systems))]
    return [
        [
            {"role": "system", "content": chance.choices(systems, popular)[0]},
            *({"role": "user", "content": _text(chance, USER_WORDS)} for _ in range(TURNS)),
        ]
        for _ in range(TALKS)
    ]


def _text(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(WORDS, k=words))


def _drive(url: str, key: str, model: str) -> dict[str, float]:
    """Hold all conversations, so many at a time; return what they took."""
    waiting, lock = list(enumerate(trace())), threading.Lock()
    seen: list[tuple[float, float, int, int]] = []
    failed: list[Exception] = []

    def client() -> None:
        while not failed:
            with lock:
                if not waiting:
                    return
                number, talk = waiting.pop(0)
            try:
                seen.extend(_hold(url, key, model, talk, random.Random(number)))
            except Exception as error:  # noqa: BLE001 - told below, by the main thread
                failed.append(error)

    begun = time.perf_counter()
    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    assert len(seen) == TALKS * TURNS
    latencies = sorted(latency for _, latency, _, _ in seen)
    firsts = sorted(first for first, _, _, _ in seen)
    return {
        "seconds": round(time.perf_counter() - begun, 2),
        "latency_mean": round(statistics.mean(latencies), 3),
        "latency_p95": round(latencies[int(len(latencies) * 0.95)], 3),
        "first_token_mean": round(statistics.mean(firsts), 3),
        "first_token_p95": round(firsts[int(len(firsts) * 0.95)], 3),
        "uncached_share": round(
            1 - sum(cached for *_, cached in seen) / sum(read for _, _, read, _ in seen), 4
        ),
    }


def _hold(
    url: str, key: str, model: str, talk: list[dict[str, str]], chance: random.Random
) -> Iterator[tuple[float, float, int, int]]:
    """Hold one conversation; yield seconds to the first token and in all, tokens read, cached."""
    messages = [talk[0]]
    for said in talk[1:]:
        time.sleep(chance.uniform(0, 0.5))
        messages.append(said)
        body = {
            "model": model, "messages": messages, "max_tokens": ANSWER, "temperature": 0,
            "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True},
        }  # fmt: skip
        begun, first, text = time.perf_counter(), 0.0, ""
        usage: dict[str, Any] = {}
        for event in _events(url, key, body):
            for choice in event.get("choices", ()):
                if piece := choice["delta"].get("content"):
                    first = first or time.perf_counter() - begun
                    text += piece
            usage = event.get("usage") or usage
        messages.append({"role": "assistant", "content": text})
        assert usage["completion_tokens"] == ANSWER, usage
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        yield first, time.perf_counter() - begun, usage["prompt_tokens"], cached


def _events(url: str, key: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    host, _, rest = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host, timeout=300)
    try:
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        connection.request("POST", f"/{rest}/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        for line in answer:
            if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
                yield json.loads(line[6:])
    finally:
        connection.close()


@contextmanager
def _engines(model: Path) -> Iterator[list[str]]:
    command = [sys.executable, "-m", "bench.bare_engine", str(model), "--alias", "smol", "--key",
               KEY, "--slots", str(SLOTS), "--context", str(CONTEXT), "--threads", "1"]  # fmt: skip
    children = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(REPLICAS)
    ]
    try:
        yield [json.loads((child.stdout or sys.stdin).readline())["url"] for child in children]
    finally:
        for child in children:
            child.kill()
        for child in children:
            child.communicate()


@contextmanager
def _freehold(urls: list[str]) -> Iterator[tuple[str, str, str]]:
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        house = House(Path(folder) / "home")
        secret = Path(folder) / "key"
        secret.write_text(KEY)
        ends = [word for url in urls for word in ("--url", url)]
        house.cli("deploy", *ends, "--as", "talk", "--upstream-model", "smol", "--upstream-key",
                  f"file:{secret}")  # fmt: skip
        try:
            house.start()
            yield f"{house.url}/v1", house.key, "talk"
        finally:
            house.close()


@contextmanager
def _router(urls: list[str], more: Sequence[str] = ()) -> Iterator[tuple[str, str, str]]:
    workers = " ".join(url.removesuffix("/v1") for url in urls)
    with vllm_router(workers, (), ("--policy", "cache_aware", *more)) as peer:
        yield f"{peer.url}/v1", KEY, "smol"


FRONTS: dict[str, Front] = {
    "freehold": _freehold,
    "vllm_router": _router,
    # Its threshold of imbalance, 64 requests, brought down to this size of load.
    "vllm_router_tuned": partial(_router, more=("--balance-abs-threshold", "2")),
}


if __name__ == "__main__":
    main()
