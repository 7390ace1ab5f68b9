"""Starts a llama.cpp server that was built for this machine, in place of the wheel's.

Run as ``python -m freehold.builtin.engine_native`` with an ``Order`` on its standard input. Every
file of the build is held against its digest first; then this process becomes the server, so the
number that control knows is the server's. The secret goes over a pipe: neither the command line nor
the environment has it. A second process waits until the server answers, tells where, and ends.
"""

import hashlib
import http.client
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
import psutil

from freehold.builtin.engine_llamacpp import Order, announce, at_once
from freehold.errors import DigestMismatch, FreeholdError, Invalid
from freehold.runtime.engine import Native
from freehold.settings import environment

SERVER = "llama-server"
LOOK_EVERY = 0.05
BATCH = 512
"""Tokens that the server computes at a time where it is told nothing."""
CARDS = ("GGML_VK_VISIBLE_DEVICES",)
"""Variables that say which graphics cards there are, of those that begin like a setting."""


def arguments(order: Order, key_file: str) -> list[str]:
    """Return the server's command line. Pure; the same choices as for the wheel."""
    found = [
        SERVER, "--model", order.weights, "--alias", order.alias,
        "--host", "127.0.0.1", "--port", "0", "--api-key-file", key_file,
        "--ctx-size", str(order.context), "--parallel", str(order.slots), "--kv-unified",
        "--threads", str(order.threads), "--threads-batch", str(order.threads),
        "--embedding", "--jinja", "--no-ui", "--offline", "--log-verbosity", "2",
    ]  # fmt: skip
    if order.reranks:
        found += ["--pooling", "rank"]
    elif not order.encoder:
        found += ["--pooling", "mean"]
    found += _adapters(order)
    batch = at_once(order.batch or BATCH, order.slots)
    if batch != BATCH:
        found += ["--ubatch-size", str(batch), "--batch-size", str(max(2048, batch))]
    if order.cache_type:
        found += ["--cache-type-k", order.cache_type, "--cache-type-v", order.cache_type]
    if order.flash is not None:
        found += ["--flash-attn", "on" if order.flash else "off"]
    if order.draft:
        found += ["--spec-type", "draft-simple", "--spec-draft-model", order.draft,
                  "--spec-draft-threads", str(order.threads)]  # fmt: skip
        if order.drafted:
            found += ["--spec-draft-n-max", str(order.drafted)]
    return found


def _adapters(order: Order) -> list[str]:
    found: list[str] = []
    for path in order.adapters:
        if set(path) & {":", ","}:
            raise Invalid(
                "invalid.engine",
                f"error: a build cannot be told of {path!r:.200}: there is ':' or ',' in it; use "
                "the wheel for adapters here",
            )
        found += ["--lora-scaled", f"{path}:0"]
    if order.adapters:  # as for the wheel: chosen by request, nothing kept by its prompt alone
        found += ["--lora-init-without-apply", "--cache-ram", "0", "--no-cache-idle-slots"]
    return found


def surroundings(given: Mapping[str, str], directory: str) -> dict[str, str]:
    """Return the server's environment: what would change its settings unseen is left out. Pure.

    Which cards may be used is the operator's to say, and stays, whatever the vendor's name for it.
    """
    kept = {
        name: value
        for name, value in given.items()
        if name in CARDS or not name.startswith(("LLAMA_", "GGML_", "HF_", "LD_", "DYLD_"))
    }
    return kept | {"LD_LIBRARY_PATH": directory, "DYLD_LIBRARY_PATH": directory}


def opened(native: Native) -> int:
    """Check every file of a build and return the server's, open; ``DigestMismatch`` otherwise.

    What was read through the descriptor is what it runs, whatever the name points to by then.
    """
    server = -1
    for name, digest in native.files:
        path = Path(native.directory) / name
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(os.dup(descriptor), "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != digest:
            raise DigestMismatch(
                "broken.engine",
                f"error: {path} is not what was built and checked: remove the build with "
                f"freehold engine remove {native.build}, and build it again",
            )
        if name == SERVER:
            server = descriptor
        else:
            os.close(descriptor)
    if server < 0:
        raise DigestMismatch("broken.engine", f"error: the build {native.build} has no {SERVER}")
    return server


def run(order: Order) -> None:
    """Become the server."""
    assert order.native is not None
    server = opened(order.native)
    key, write = os.pipe()
    os.write(write, order.secret.encode() + b"\n")
    os.close(write)
    os.set_inheritable(key, True)
    parent = os.getpid()
    if os.fork() == 0:
        os.close(key)
        os.close(server)
        _announce_when_up(parent, order)
        os._exit(0)
    argv = arguments(order, f"/dev/fd/{key}")
    around = surroundings(environment(), order.native.directory)
    if os.execve in os.supports_fd:
        os.execve(server, argv, around)  # noqa: S606 - no shell, a checked file
    os.execve(Path(order.native.directory) / SERVER, argv, around)  # noqa: S606 - see above


def _announce_when_up(server: int, order: Order) -> None:
    while os.getppid() == server:
        for port in _ports(server):
            if _answers(port, order.secret):
                announce(Path(order.ready), f"http://127.0.0.1:{port}")
                return
        time.sleep(LOOK_EVERY)


def _ports(pid: int) -> list[int]:
    try:
        connections = psutil.Process(pid).net_connections("tcp4")
    except psutil.Error:
        return []
    return [each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN]


def _answers(port: int, secret: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health", headers={"authorization": f"Bearer {secret}"})
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    os.umask(0o077)
    try:
        run(msgspec.json.decode(sys.stdin.buffer.read(), type=Order))
    except FreeholdError as error:
        sys.exit(error.message)
    except OSError as error:
        sys.exit(f"error: cannot start the build: {error}")
