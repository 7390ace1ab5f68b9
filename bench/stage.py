"""What every part needs: a place to work, weights, a Freehold, processors, ports, patience."""

import os
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from freehold.models.catalog import read_catalog
from tests.house import House

ROOT = Path(__file__).parents[1]
WORK = ROOT / "bench" / ".work"
GATEWAY_CORE = ("taskset", "-c", "0")


def other_cores() -> list[str]:
    """Return the prefix that keeps a command off the gateway's core."""
    last = (os.cpu_count() or 2) - 1
    return ["taskset", "-c", f"1-{last}" if last > 1 else "1"]


def starter() -> Path:
    """Return the starter model's weights, which the tests keep."""
    entry = next(entry for entry in read_catalog().values() if entry.starter)
    kept = ROOT / ".cache" / f"{entry.sha256}.gguf"
    if not kept.exists():
        sys.exit("run make test once: it keeps the starter's weights in .cache")
    return kept


def catalog_model(name: str) -> Path:
    """Return the weights of a catalog entry; fetched into ``bench/.work`` once."""
    home = WORK / "models"
    freehold = [sys.executable, "-m", "freehold", "--home", home]
    subprocess.run([*freehold, "model", "import", name], check=True, stdout=subprocess.DEVNULL)
    digest = read_catalog()[name].sha256
    return home / "blobs" / "sha256" / digest[:2] / digest


@contextmanager
def house(model: Path | None = None, prefix: tuple[str, ...] = ()) -> Iterator[House]:
    """Run a Freehold; with ``model`` deployed as ``smol``."""
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        made = House(Path(folder) / "home", prefix=prefix)
        if model is not None:
            made.cli("model", "import", str(model), "--name", "smol")
            made.cli("deploy", "smol")
        try:
            yield made.start()
        finally:
            made.close()


def answers(url: str) -> bool:
    """Say whether something answers at a URL."""
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except OSError:
        return False


def free_port() -> int:
    """Return a port nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def tree_rss(pid: int) -> int:
    """Return the resident bytes of a process and all its children."""
    process = psutil.Process(pid)
    return sum(p.memory_info().rss for p in (process, *process.children(recursive=True)))
