"""The gateway beside its peers: added latency, throughput, streams, memory, time to start.

The gateway has core 0; load, mock and our control process the others. Freehold runs as it always
does, everything on: key, budget reservation, durable audit record, usage. Rounds are interleaved.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

from bench import mock, peers
from bench.load import closed_loop, many_streams
from bench.peers import Peer
from bench.stage import GATEWAY_CORE, WORK, answers, free_port, house, tree_rss
from tests.house import House, eventually

Runs = dict[str, list[dict[str, float]]]
MANY = 100_000
FRAMES_A_SECOND = 50


def latency(given: argparse.Namespace) -> dict[str, Any]:
    """Added latency and throughput of whole answers at 1, 32 and 64 connections."""
    if missing := peers.missing_tools():
        return {"skipped": f"not installed: {', '.join(missing)}"}
    runs: Runs = {}
    with ExitStack() as stack:
        upstream = stack.enter_context(mock.whole_answers())
        targets = {"direct": Peer(upstream, {}, 0)}
        targets["freehold"] = stack.enter_context(_freehold(upstream))
        for name, start in peers.PEERS.items():
            targets[name] = stack.enter_context(start(upstream))
        for target in targets.values():
            closed_loop(target.url, target.headers, 4, 2)
        for _ in range(given.rounds):
            for name, target in targets.items():
                for connections in (1, 32, 64):
                    found = closed_loop(target.url, target.headers, connections)
                    runs.setdefault(f"{name} c={connections}", []).append(found)
        resident = {
            name: round(tree_rss(target.pid) / 1e6)
            for name, target in targets.items()
            if target.pid
        }
    medians = _medians(runs)
    return {
        "added_ms": {name: _added(medians, name) for name in targets if name != "direct"},
        "throughput_ratio_c32": {
            f"freehold / {name}": round(
                medians["freehold c=32"]["rps"] / max(medians[f"{name} c=32"]["rps"], 0.001), 2
            )
            for name in peers.PEERS
        },
        "rss_mb": resident,
        "runs": medians,
    }


def streams(given: argparse.Namespace) -> dict[str, Any]:
    """Hold 256 streams of 50 frames a second; peers as many as they are known to hold, and 256."""
    if missing := peers.missing_tools():
        return {"skipped": f"not installed: {', '.join(missing)}"}
    runs: Runs = {}
    with ExitStack() as stack:
        upstream = stack.enter_context(mock.streams(FRAMES_A_SECOND))
        targets = {
            "direct": (Peer(upstream, {}, 0), (256,)),
            "freehold": (stack.enter_context(_freehold(upstream)), (256,)),
            "ceiling": (stack.enter_context(peers.ceiling(upstream)), (256,)),
            "portkey": (stack.enter_context(peers.portkey(upstream)), (32, 256)),
            "litellm": (stack.enter_context(peers.litellm(upstream)), (1, 32)),
        }
        for _ in range(min(3, given.rounds)):
            for name, (target, counts) in targets.items():
                for count in counts:
                    found = many_streams(target.url, target.headers, count, 250)
                    runs.setdefault(f"{name} streams={count}", []).append(found)
    medians = _medians(runs)
    direct, ours = medians["direct streams=256"], medians["freehold streams=256"]
    return {
        "added_first_p99_ms": round(ours["first_p99_ms"] - direct["first_p99_ms"], 3),
        "added_frame_p99_ms": round(ours["frame_p99_ms"] - direct["frame_p99_ms"], 3),
        "runs": medians,
    }


def growth(_given: argparse.Namespace) -> dict[str, Any]:
    """Resident memory of a gateway before and after 100,000 requests."""
    with mock.whole_answers() as upstream, _freehold(upstream) as ours:
        closed_loop(ours.url, ours.headers, 32, 5)
        process = psutil.Process(ours.pid)
        before, sent, rounds = process.memory_info().rss, 0.0, []
        while sent < MANY:
            sent += closed_loop(ours.url, ours.headers, 32, 10)["rps"] * 10
            rounds.append(round((process.memory_info().rss - before) / 1e6, 2))
    return {"requests": round(sent), "growth_mb": rounds[-1], "growth_by_10_s_mb": rounds}


def start(given: argparse.Namespace) -> dict[str, Any]:
    """Seconds from the command to readiness, on an empty home, and again on the same home."""
    first, again = [], []
    for _ in range(given.rounds):
        with tempfile.TemporaryDirectory(dir=WORK) as folder:
            for found in (first, again):
                found.append(_seconds_to_ready(Path(folder) / "home"))
    return {"empty_home_seconds": first, "again_seconds": again}


def _seconds_to_ready(home: Path) -> float:
    port = free_port()
    begun = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-m", "freehold", "up", "--home", str(home), "--no-starter",
         "--port", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        eventually(lambda: answers(f"http://127.0.0.1:{port}/readyz"), "ready")
        return round(time.perf_counter() - begun, 2)
    finally:
        child.terminate()
        child.wait()


@contextmanager
def _freehold(upstream: str) -> Iterator[Peer]:
    with house(prefix=GATEWAY_CORE) as ours:
        ours.cli("deploy", "--url", f"{upstream}/v1", "--as", "m", "--wait")
        _move_control(ours)
        yield Peer(ours.url, {"authorization": f"Bearer {_key(ours)}"}, ours.gateways()[0])


def _move_control(ours: House) -> None:
    """Let the gateway have its core alone, as peers have theirs."""
    others = set(range(os.cpu_count() or 1)) - {0}
    for thread in psutil.Process(ours.control.pid).threads() if ours.control and others else ():
        os.sched_setaffinity(thread.id, others)


def _key(ours: House) -> str:
    """Return a key with limits that nothing reaches: every request reserves and settles."""
    plenty = 10**12
    limits = (f"requests={plenty}/day", f"tokens={plenty}/day", f"concurrency={plenty}")
    ours.cli("limit", "set", "principal:a-developer", *limits)
    return ours.make_key("developer")


def _added(medians: dict[str, dict[str, float]], name: str) -> dict[str, float]:
    return {
        f"{figure} c={connections}": round(
            medians[f"{name} c={connections}"][f"{figure}_ms"]
            - medians[f"direct c={connections}"][f"{figure}_ms"],
            3,
        )
        for connections in (1, 32, 64)
        for figure in ("p50", "p99")
    }


def _medians(runs: Runs) -> dict[str, dict[str, float]]:
    return {
        name: {key: round(statistics.median(run[key] for run in each), 3) for key in each[0]}
        for name, each in runs.items()
    }
