"""Keep what runs found, and write it down: ``bench/results.json``, ``bench/RESULTS.md``."""

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).parent
KEPT = HERE / "results.json"
TARGETS = {
    "install": "at most 250 MB",
    "answer": "first answer within 60 s with a warm package cache",
    "memory": "control and gateway idle within 150 MB resident",
    "latency": "added p50 at most 0.8 ms and p99 4 ms at c=1, p99 20 ms at c=64; at c=32 "
    "at least 60 x the throughput of LiteLLM, 6 x of Portkey, 0.5 x of the ceiling",
    "streams": "256 at 50 frames a second, none lost or reordered, added p99 at most 3 ms for the "
    "first frame and 0.3 ms for the others",
    "growth": "at most 5 MB over 100,000 requests",
    "start": "ready within 3 s without models",
    "failover": "16 of 16: a whole and correct answer within the deadline, streamed and not",
    "tokens": "at least 0.98 of the bare engine",
    "import": "within 10 s and 150 MB over the interpreter",
    "registry": "at least 45 % saved on a family of quantisations; 1 GB in within 10 s and 150 MB "
    "resident",
    "engine": "reads at least 1.3 x as fast as the wheel",
    "balance": "ahead of vllm-router's cache_aware on four replicas",
    "scan": "every trick caught, no false alarm",
    "compress": "at equal size a divergence of at most 0.85 of the stock type's, or at equal "
    "divergence at least 8 % smaller; the 0.5B within 10 minutes on two cores",
    "humaneval": "pass@1 equal to the bare engine's",
}


def keep(name: str, found: dict[str, Any]) -> None:
    """Put a part's result beside the others."""
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    kept[name] = {"day": time.strftime("%Y-%m-%d"), "machine": _machine(), **found}
    KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")


def write() -> None:
    """Write the page."""
    kept = json.loads(KEPT.read_text())
    lines = [
        "# Results",
        "",
        "Written by `make bench`. Runs are interleaved with the peer's on the same machine: trust "
        "the ratios, not the absolute times.",
        "",
    ]
    for name in [*TARGETS, *sorted(set(kept) - set(TARGETS))]:
        if name not in kept:
            continue
        found = dict(kept[name])
        lines += [f"## {name}", "", f"Target: {TARGETS.get(name, 'none')}.", ""]
        lines += [f"{found.pop('day')}, {found.pop('machine')}.", "", "| | |", "|---|---|"]
        lines += _rows(found)
        lines.append("")
    (HERE / "RESULTS.md").write_text("\n".join(lines))


def _rows(found: dict[str, Any], before: str = "") -> list[str]:
    rows: list[str] = []
    for name, value in found.items():
        label = f"{before}{name.replace('_', ' ')}"
        if isinstance(value, dict):
            rows += _rows(value, f"{label}: ")
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            rows.append(f"| {label} | {shown} |")
    return rows


def _machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}"
    )
