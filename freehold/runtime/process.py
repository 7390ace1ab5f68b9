"""Processes that outlive us: started in a session of their own, found again by number and birth.

A process number alone is no identity, numbers are used again; with its birth it is one. Birth is
counted from the start of the machine: the wall clock may be set while a process runs.
"""

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import psutil

from freehold.errors import Broken, Unavailable

T = TypeVar("T")
LOG_BYTES = 16 * 1024 * 1024
"""Bytes of a log at which the next start puts it aside, in place of the one put aside before."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MARK = "FREEHOLD_CHILD_OF"
"""In the environment of what we start: says whose it is, where no record was written any more."""


class Identity(msgspec.Struct, frozen=True):
    """A process, beyond doubt. ``started`` is its birth: which start of the machine, and when."""

    pid: int
    started: str


def spawn(
    argv: Sequence[str],
    log: Path,
    *,
    payload: bytes | None = None,
    environment: dict[str, str] | None = None,
    descriptors: Sequence[int] = (),
    owner: Path | None = None,
) -> Identity:
    """Start a process that survives us; its output goes to ``log``, ``payload`` to its input.

    ``owner`` is the directory of its record: ``owned_by`` finds the process by it.
    """
    if owner is not None:
        environment = {**(environment or {}), **mark(owner)}
    try:
        log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _rotate(log)
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
    return Identity(child.pid, birth(child.pid) or "")


def birth(pid: int) -> str | None:
    """Return the birth of a process; None when there is none of that number, or it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self/stat").exists() else _told_birth(pid)
    # The name in parentheses may hold anything; the state and, 19 fields on, the birth follow it.
    fields = text.rpartition(b")")[2].split()
    if fields[0] in (b"Z", b"X"):
        return None
    return f"{_boot()}:{int(fields[19])}"


def is_alive(identity: Identity) -> bool:
    """Say whether that very process runs; a child of ours that has ended is reaped here."""
    with suppress(ChildProcessError, OSError):
        os.waitpid(identity.pid, os.WNOHANG)
    return bool(identity.started) and birth(identity.pid) == identity.started


def mark(owner: Path) -> dict[str, str]:
    """Return what says in a process's environment that it was started for an owner."""
    return {_MARK: os.path.realpath(owner)}


def owned_by(owner: Path) -> list[Identity]:
    """Return the running processes that were started for an owner, with or without a record."""
    wanted, found = os.path.realpath(owner), []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(_MARK) == wanted:
                started = birth(process.pid)
                found += [Identity(process.pid, started)] if started else []
    return found


def send(identity: Identity, number: signal.Signals) -> None:
    """Signal the process if it still is the one we mean."""
    if is_alive(identity):
        with suppress(ProcessLookupError, PermissionError):
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
    partial = path.with_name(f"{path.name}.partial")
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


def _rotate(log: Path) -> None:
    with suppress(FileNotFoundError):
        if log.stat().st_size >= LOG_BYTES:
            log.replace(log.with_name(f"{log.name}.1"))


def _boot() -> str:
    with suppress(OSError):
        return _BOOT_ID.read_text(encoding="ascii").strip()
    return ""


def _told_birth(pid: int) -> str | None:
    """Return a birth where there is no /proc: the kernel wrote that down and does not change it."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        inner: Any = vars(process)["_proc"]  # it has no public name
        return str(inner.create_time(monotonic=True))
    except psutil.Error:
        return None
