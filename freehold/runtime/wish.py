"""What the pool is told: what shall run, and what gateways do with what runs."""

from collections.abc import Mapping

import msgspec

from freehold.runtime.engine import Launch


class Desired(msgspec.Struct, frozen=True, kw_only=True):
    """What a deployment shall run: one launch a replica. ``idle_unload`` in seconds, 0 is never.

    One that ``follows`` another is served by its replicas; its own of before go once those can.
    """

    deployment: str
    launches: tuple[Launch, ...]
    idle_unload: float = 0.0
    follows: str | None = None


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What gateways report: requests running by replica, last use by replica (monotonic seconds).

    ``settled`` says that every gateway has seen the newest snapshot, which has ``offered`` replicas
    to requests: only then does "no request runs there" mean that none will come to the others.
    """

    inflight: Mapping[str, int] = {}
    used: Mapping[str, float] = {}
    offered: frozenset[str] = frozenset()
    settled: bool = True
