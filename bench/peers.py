"""The gateways we are held against, each started as its owners say, on the gateway's core.

All of them get the same mock upstream. LiteLLM has its master key and nothing else switched on,
Portkey and vllm-router have nothing, the ceiling is no product (``bench/ceiling.py``).
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.stage import GATEWAY_CORE, WORK, free_port
from tests.house import eventually

LITELLM = "litellm[proxy]<1.109"
PORTKEY = "@portkey-ai/gateway@1.15.2"
VLLM_ROUTER = "vllm-router==0.1.17"


class Peer:
    """A running gateway: where it is, what to send it, its process."""

    def __init__(self, url: str, headers: dict[str, str], pid: int) -> None:
        self.url = url
        self.headers = headers
        self.pid = pid


@contextmanager
def litellm(upstream: str, prefix: Sequence[str] = GATEWAY_CORE) -> Iterator[Peer]:
    """LiteLLM, one worker."""
    binary = _venv("litellm", LITELLM) / "litellm"
    port, config, key = free_port(), WORK / "litellm.yaml", f"sk-{'0123456789abcdef' * 2}"
    config.write_text(
        "model_list:\n  - model_name: m\n    litellm_params:\n      model: openai/m\n"
        f"      api_base: {upstream}/v1\n      api_key: x\n"
    )
    environment = {"LITELLM_MASTER_KEY": key, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    command = [binary, "--config", config, "--port", str(port), "--num_workers", "1"]
    url = f"http://127.0.0.1:{port}"
    with _running("litellm", [*prefix, *command], f"{url}/health/liveliness", environment) as pid:
        yield Peer(url, {"authorization": f"Bearer {key}"}, pid)


@contextmanager
def portkey(upstream: str, prefix: Sequence[str] = GATEWAY_CORE) -> Iterator[Peer]:
    """Portkey's open gateway."""
    folder, port = WORK / "portkey", free_port()
    if not (folder / "ready").exists():
        folder.mkdir(exist_ok=True)
        # With newer ones of these it answers every stream with a 500 (Node 20): headers are frozen.
        pinned = {"overrides": {"@hono/node-server": "1.13.7"}}
        (folder / "package.json").write_text(json.dumps(pinned))
        npm = ["npm", "install", "--silent", "--prefix", folder, PORTKEY]
        subprocess.run(npm, check=True, stdout=subprocess.DEVNULL)
        (folder / "ready").touch()
    script = folder / "node_modules/@portkey-ai/gateway/build/start-server.js"
    command = [*prefix, "node", script, f"--port={port}", "--headless"]
    url = f"http://127.0.0.1:{port}"
    headers = {
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"{upstream}/v1",
        "authorization": "Bearer x",
    }
    with _running("portkey", command, url) as pid:
        yield Peer(url, headers, pid)


@contextmanager
def vllm_router(
    upstream: str,
    prefix: Sequence[str] = GATEWAY_CORE,
    options: Sequence[str] = ("--policy", "round_robin"),
) -> Iterator[Peer]:
    """vLLM's router in Rust; ``upstream`` may be several URLs, with spaces between them."""
    binary = _venv("vllm-router", VLLM_ROUTER) / "vllm-router"
    port, metrics = free_port(), free_port()
    command = [*prefix, binary, "--port", str(port), "--worker-urls", *upstream.split(),
               *options, "--prometheus-port", str(metrics)]  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    with _running("vllm-router", command, f"{url}/health") as pid:
        yield Peer(url, {}, pid)


@contextmanager
def ceiling(upstream: str, prefix: Sequence[str] = GATEWAY_CORE) -> Iterator[Peer]:
    """The bare pass-through."""
    port = free_port()
    command = [*prefix, sys.executable, "-m", "bench.ceiling", str(port), upstream]
    url = f"http://127.0.0.1:{port}"
    with _running("ceiling", command, url, accepts_errors=True) as pid:
        yield Peer(url, {}, pid)


PEERS: dict[str, Callable[[str], object]] = {
    "ceiling": ceiling,
    "litellm": litellm,
    "portkey": portkey,
    "vllm-router": vllm_router,
}


def missing_tools() -> list[str]:
    """Return what the gateway's figures need and this machine lacks."""
    return [tool for tool in ("wrk", "nginx", "taskset", "npm") if not shutil.which(tool)]


def _venv(name: str, requirement: str) -> Path:
    venv = WORK / name
    if not (venv / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin/pip", "install", "--quiet", requirement], check=True)
        (venv / "ready").touch()
    return venv / "bin"


@contextmanager
def _running(
    name: str,
    command: Sequence[object],
    health: str,
    environment: dict[str, str] | None = None,
    *,
    accepts_errors: bool = False,
) -> Iterator[int]:
    with (WORK / f"{name}.log").open("wb") as log:
        child = subprocess.Popen(
            [str(each) for each in command], env={**os.environ, **(environment or {})},
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        eventually(lambda: _up(health, accepts_errors=accepts_errors), name, 240)
        yield child.pid
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _up(url: str, *, accepts_errors: bool) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError:
        return accepts_errors
    except OSError:
        return False
