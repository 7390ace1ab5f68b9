"""Run what reads hostile bytes in a process of its own: little memory, little time, no network."""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import msgspec

from freehold.errors import Unavailable
from freehold.settings import environment

MEMORY = 3 * 1024 * 1024 * 1024
"""Bytes of address space: what numerical libraries reserve counts too."""
OUTPUT = 1024 * 1024
_FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM)
"""How a child ends that is not to blame: over its own limits it ends by another signal."""
PATIENCE = 60
"""Seconds to wait beyond ten times a task's own, which are of processor time."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What a child shall do: ``render`` templates, or give an ``opinion`` on or ``yara`` a file.

    ``names`` are what the files at ``paths`` are called within their model.
    ``memory`` is in bytes, ``seconds`` are of processor time.
    """

    act: str
    texts: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    rules: str = ""
    memory: int = MEMORY
    seconds: int = 60


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What a child says: findings as (rule, place in texts or paths, text, by)."""

    found: tuple[tuple[str, int, str, str], ...] = ()
    missing: str = ""
    """The package that would be needed."""


class Stopped(Exception):
    """The child was over a limit, or died: what it read is to blame, or may be."""


def confined(task: Task) -> Said:
    """Do a task in a child; ``Stopped`` when it did not end well, with the reason."""
    with tempfile.TemporaryDirectory(prefix="freehold-scan-") as scratch:
        try:
            ran = subprocess.run(
                [sys.executable, "-I", "-X", "utf8", "-m", "freehold.models.scan.child"],
                input=msgspec.json.encode(task),
                capture_output=True,
                timeout=PATIENCE + task.seconds * 10,
                check=False,
                cwd=scratch,
                env=_environment(scratch),
                start_new_session=True,
            )
        except subprocess.TimeoutExpired as error:  # its own time was not up: it got none
            raise Unavailable(
                "unavailable.scan", "this machine is too busy to scan: import it again later"
            ) from error
        except OSError as error:
            raise Unavailable(
                "unavailable.scan", f"cannot start a process to scan in: {error.strerror}"
            ) from error
    if ran.returncode in _FROM_OUTSIDE or b"ModuleNotFoundError" in ran.stderr[-500:]:
        raise Unavailable(
            "unavailable.scan",
            "the process that scans was ended from outside, or could not begin: import it again "
            f"({_reason(ran.returncode, ran.stderr)})",
        )
    if ran.returncode != 0 or len(ran.stdout) > OUTPUT:
        raise Stopped(_reason(ran.returncode, ran.stderr))
    try:
        return msgspec.json.decode(ran.stdout, type=Said)
    except msgspec.DecodeError as error:
        raise Stopped("it answered something else than asked") from error


def _environment(scratch: str) -> dict[str, str]:
    """Return what a child sees: no secrets of ours, no telemetry of others, one thread."""
    ours = environment()
    kept = {name: ours[name] for name in ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT") if name in ours}
    return kept | {
        "HOME": scratch,
        "TMPDIR": scratch,
        "PROMPTFOO_DISABLE_TELEMETRY": "1",
        "NO_ANALYTICS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "RAYON_NUM_THREADS": "1",
    }


def _reason(code: int, errors: bytes) -> str:
    lines: Sequence[str] = errors.decode("utf-8", "replace").strip().splitlines()
    last = lines[-1][:200] if lines else ""
    if code == -signal.SIGXCPU:
        return "it took too much time"
    if "MemoryError" in last:
        return "it took too much memory"
    return f"it ended with {code}: {last}"


def answer(said: Said) -> bytes:
    """Return a child's last words."""
    return msgspec.json.encode(said)


def read_task(data: bytes) -> Any:
    """Return the task that a child was given."""
    return msgspec.json.decode(data, type=Task)
