"""A replica: one explicit state machine. Pure: events in, the next state and acts out.

::

    idle ──want──> loading ──loaded──> ready ──drain──> draining ──drained──> stopped
      ^               │ exited           │ exited           │ exited
      │               v                  v                  v
      └──retry──── failed <──────────────┘               stopped

``idle`` replicas have no process and cost nothing; ``failed`` ones wait for their backoff.
"""

from typing import Literal

import msgspec

from freehold.runtime.engine import Launch

State = Literal["idle", "loading", "ready", "draining", "failed", "stopped"]
Act = Literal["spawn", "terminate"]

FIRST_BACKOFF = 0.5
LONGEST_BACKOFF = 60.0
STEADY_AFTER = 60.0
"""Seconds a replica must have been ready for its earlier failures to be forgotten."""


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """One replica. ``since`` is when it entered its state, ``used`` its last request.

    Times are in seconds of the machine's monotonic clock: the wall clock may be set. ``unstarted``
    counts processes in a row that were started and ended, or were too slow, before they answered.
    """

    id: str
    launch: Launch
    state: State = "idle"
    since: float = 0.0
    used: float = 0.0
    failures: int = 0
    unstarted: int = 0
    retry_at: float = 0.0
    pid: int | None = None
    started: str | None = None
    url: str | None = None
    secret: str | None = None
    reason: str | None = None


class Want(msgspec.Struct, frozen=True):
    """Somebody needs it, and there is room."""


class Spawned(msgspec.Struct, frozen=True):
    """Its process was started. ``started`` tells a process from a later one with its number."""

    pid: int | None
    started: str | None
    secret: str | None


class Loaded(msgspec.Struct, frozen=True):
    """It answers at ``url``."""

    url: str


class Exited(msgspec.Struct, frozen=True):
    """Its process is gone, or never came up."""

    reason: str


class Drain(msgspec.Struct, frozen=True):
    """It shall go: no new requests, end what runs.."""


class Drained(msgspec.Struct, frozen=True):
    """Nothing runs on it any more, or its time is up."""


Event = Want | Spawned | Loaded | Exited | Drain | Drained


def step(replica: Replica, event: Event, now: float) -> tuple[Replica, tuple[Act, ...]]:
    """Return the replica after an event, and what to do about it; odd events change nothing."""
    match replica.state, event:
        case (("idle" | "failed"), Want()):
            return _enter(replica, "loading", now, url=None), ("spawn",)
        case "loading", Spawned(pid=pid, started=started, secret=secret):
            return msgspec.structs.replace(replica, pid=pid, started=started, secret=secret), ()
        case "loading", Loaded(url=url):
            changes = {"url": url, "used": now, "reason": None, "unstarted": 0}
            return _enter(replica, "ready", now, **changes), ()
        case (("loading" | "ready"), Exited(reason=reason)):
            return _failed(replica, reason, now), ()
        case "draining", Exited() | Drained():
            acts: tuple[Act, ...] = ("terminate",) if isinstance(event, Drained) else ()
            return _gone(_enter(replica, "stopped", now)), acts
        case "ready", Drain():
            return _enter(replica, "draining", now), ()
        case "loading", Drain():
            return _gone(_enter(replica, "stopped", now)), ("terminate",)
        case (("idle" | "failed"), Drain()):
            return _enter(replica, "stopped", now), ()
        case _:
            return replica, ()


def may_load(replica: Replica, now: float) -> bool:
    """Say whether it could be loaded now: it is idle, or its backoff has passed."""
    return replica.state == "idle" or (replica.state == "failed" and now >= replica.retry_at)


def backoff(failures: int) -> float:
    """Return the seconds to wait after so many failures in a row."""
    return min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0 ** max(0, failures - 1))


def _failed(replica: Replica, reason: str, now: float) -> Replica:
    steady = replica.state == "ready" and now - replica.since >= STEADY_AFTER
    failures = 1 if steady else replica.failures + 1
    # Without a process the engine has no part in it: weights are checked before it is started.
    ended = replica.state == "loading" and replica.pid is not None
    unstarted = replica.unstarted + ended
    failed = _enter(replica, "failed", now, failures=failures, unstarted=unstarted, reason=reason)
    return _gone(msgspec.structs.replace(failed, retry_at=now + backoff(failures)))


def _enter(replica: Replica, state: State, now: float, **changes: object) -> Replica:
    return msgspec.structs.replace(replica, state=state, since=now, **changes)


def _gone(replica: Replica) -> Replica:
    return msgspec.structs.replace(replica, pid=None, started=None, url=None, secret=None)
