"""Processes that outlive us: started in a session of their own, found again by number and birth.

A process number alone is no identity, numbers are used again; with the time of birth it is one.
"""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec
import psutil

from freehold.errors import Broken, Unavailable

T = TypeVar("T")


class Identity(msgspec.Struct, frozen=True):
    """A process, beyond doubt. ``started`` is its birth in epoch seconds."""

    pid: int
    started: float


def spawn(
    argv: Sequence[str],
    log: Path,
    *,
    payload: bytes | None = None,
    environment: dict[str, str] | None = None,
    descriptors: Sequence[int] = (),
) -> Identity:
    """Start a process that survives us; its output goes to ``log``, ``payload`` to its input."""
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with log.open("ab") as output:
            child = subprocess.Popen(
                list(argv),
                stdin=subprocess.PIPE if payload is not None else subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=tuple(descriptors),
                env=environment,
                cwd="/",
            )
    except OSError as error:
        raise Unavailable("unavailable.process", f"cannot start {argv[0]}: {error}") from error
    if child.stdin is not None and payload is not None:
        with suppress(BrokenPipeError), child.stdin as pipe:
            pipe.write(payload)
    # We ask the kernel, not this object, whether the child lives: it may be another's by then.
    child.returncode = 0
    try:
        return Identity(child.pid, psutil.Process(child.pid).create_time())
    except psutil.NoSuchProcess:
        return Identity(child.pid, time.time())


def is_alive(identity: Identity) -> bool:
    """Say whether that very process runs; a child of ours that has ended is reaped here."""
    with suppress(ChildProcessError, OSError):
        os.waitpid(identity.pid, os.WNOHANG)
    try:
        process = psutil.Process(identity.pid)
        return (
            abs(process.create_time() - identity.started) < 1.0
            and process.status() != psutil.STATUS_ZOMBIE
        )
    except psutil.NoSuchProcess:
        return False


def send(identity: Identity, number: signal.Signals) -> None:
    """Signal the process if it still is the one we mean."""
    if is_alive(identity):
        with suppress(ProcessLookupError):
            os.kill(identity.pid, number)


def resident_of(pid: int) -> int:
    """Return a process's resident memory in bytes; 0 when it is gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def machine_memory() -> int:
    """Return the bytes of memory this machine, or the container around us, may use."""
    total = int(psutil.virtual_memory().total)
    with suppress(OSError, ValueError):
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total


def write_private(path: Path, value: object) -> None:
    """Write a value as JSON that only its owner can read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_suffix(".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(value))
    partial.replace(path)


def read_private(path: Path, kind: type[T]) -> T:
    """Read what ``write_private`` wrote."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except msgspec.DecodeError as error:
        raise Broken("broken.run_file", f"{path} is damaged: delete it and start again") from error
