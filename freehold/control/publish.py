"""Publish snapshots to gateways, and know which gateway works from which."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from freehold.errors import FreeholdError
from freehold.models.deploy import Plan
from freehold.runtime.engine import Engine
from freehold.runtime.pool import Load, Pool
from freehold.runtime.replica import Replica
from freehold.settings import resolve_secret
from freehold.store.snapshot import (
    KeyGrant,
    Route,
    Snapshot,
    Target,
    read_snapshot,
    write_snapshot,
)

FAILED_AFTER = 3
"""Failures in a row after which a deployment counts as failed, though it is tried on."""

SILENT_AFTER = 8.0
"""Seconds after which a gateway that asks nothing counts for nothing."""


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway said last."""

    revision: int
    inflight: Mapping[str, int]
    used: Mapping[str, float]
    at: float


class Publisher:
    """Holds the snapshot in force. Questions are held open until there is something newer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self.snapshot = read_snapshot(path)
        except FreeholdError:
            self.snapshot = Snapshot()
        self.sightings: dict[str, Sighting] = {}
        self._changed = asyncio.Event()
        self._seen = asyncio.Event()

    def publish(
        self,
        keys: Mapping[str, KeyGrant],
        routes: Mapping[str, Route],
        url: str,
        secret: str,
        *,
        ready: bool,
    ) -> int:
        """Put a new snapshot in force if anything differs; return the revision in force."""
        now = self.snapshot
        following = Snapshot(
            revision=now.revision,
            ready=ready,
            keys=dict(keys),
            routes=dict(routes),
            control_url=url,
            control_secret=secret,
        )
        if following != now:
            self.snapshot = msgspec.structs.replace(following, revision=now.revision + 1)
            write_snapshot(self._path, self.snapshot)
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()
        return self.snapshot.revision

    async def answer(
        self,
        gateway: str,
        revision: int,
        inflight: Mapping[str, int],
        used: Mapping[str, float],
        hold: float,
    ) -> Snapshot | None:
        """Take a gateway's question; return a snapshot other than the one it has, or None."""
        self.sightings[gateway] = Sighting(
            revision=revision, inflight=inflight, used=used, at=time.monotonic()
        )
        seen, self._seen = self._seen, asyncio.Event()
        seen.set()
        if revision == self.snapshot.revision:
            try:
                await asyncio.wait_for(self._changed.wait(), hold)
            except TimeoutError:
                return None
        return self.snapshot

    async def in_force(self, revision: int, gateways: Iterable[str], patience: float) -> list[str]:
        """Wait until all named gateways use at least ``revision``; return those that do not."""
        deadline = time.monotonic() + patience
        while True:
            behind = [
                name
                for name in gateways
                if name not in self.sightings or self.sightings[name].revision < revision
            ]
            left = deadline - time.monotonic()
            if not behind or left <= 0:
                return behind
            try:
                await asyncio.wait_for(self._seen.wait(), left)
            except TimeoutError:
                return behind

    def load(self, gateways: Sequence[str]) -> Load:
        """Add up what the live gateways report."""
        now = time.monotonic()
        inflight: dict[str, int] = {}
        used: dict[str, float] = {}
        settled = True
        for name in gateways:
            sighting = self.sightings.get(name)
            if sighting is None or now - sighting.at > SILENT_AFTER:
                settled = False
                continue
            settled = settled and sighting.revision == self.snapshot.revision
            for replica, count in sighting.inflight.items():
                inflight[replica] = inflight.get(replica, 0) + count
            for replica, at in sighting.used.items():
                used[replica] = max(used.get(replica, 0.0), at)
        return Load(inflight=inflight, used=used, settled=settled)


def routes(
    plans: Iterable[Plan], pool: Pool, engines: Mapping[str, Engine], created: Mapping[str, float]
) -> dict[str, Route]:
    """Turn plans and running replicas into what gateways need to know."""
    return {
        plan.deployment.name: _route(plan, pool, engines, int(created[plan.deployment.name]))
        for plan in plans
    }


def _route(plan: Plan, pool: Pool, engines: Mapping[str, Engine], created: int) -> Route:
    deployment, version = plan.deployment, plan.version
    replicas = pool.replicas_of(deployment.name)
    ready = [replica for replica in replicas if replica.state == "ready"]
    state, reason, progress = _standing(plan, pool, replicas)
    launch = plan.desired.launches[0] if plan.desired else None
    targets: list[Target] = []
    for replica in sorted(ready, key=lambda replica: replica.id):
        try:
            targets.append(_target(replica, engines[replica.launch.engine], resolve_secret))
        except FreeholdError as error:
            state, reason = "failed", error.message
    return Route(
        deployment=deployment.name,
        engine=launch.engine if launch else "",
        place=deployment.place,
        task=launch.task if launch else "chat",
        state=state,
        model=version.row.model if version else deployment.upstream_model,
        version=version.row.number if version else None,
        digest=version.artifacts[0].digest if version else None,
        parameters=version.manifest.parameters if version else None,
        context=(launch.context or None) if launch else None,
        created=created,
        progress=progress,
        reason=reason,
        fallbacks=deployment.fallbacks,
        targets=tuple(targets),
    )


def _standing(plan: Plan, pool: Pool, replicas: Sequence[Replica]) -> tuple[str, str | None, float]:
    if any(replica.state == "ready" for replica in replicas):
        return "ready", None, 1.0
    if plan.reason is not None:
        return "missing", plan.reason, 0.0
    # A further try at what failed so often is no reason to let anybody wait for it.
    failed = [replica for replica in replicas if replica.failures]
    if failed and min(replica.failures for replica in replicas) >= FAILED_AFTER:
        return "failed", failed[0].reason, 0.0
    loading = [replica for replica in replicas if replica.state == "loading"]
    if loading:
        reason = loading[0].reason
        return "loading", reason, max(pool.progress(replica) for replica in loading)
    if failed:
        return "loading", failed[0].reason, 0.0
    waiting = next((pool.waiting[r.id] for r in replicas if r.id in pool.waiting), None)
    if pool.is_asleep(plan.deployment.name):
        return "idle", waiting, 0.0
    return "loading", waiting, 0.0


def _target(replica: Replica, engine: Engine, secret: Callable[[str], str]) -> Target:
    launch = replica.launch
    key = replica.secret
    if launch.upstream_key is not None:
        key = secret(launch.upstream_key)
    assert replica.url is not None
    local = launch.weights is not None
    return Target(
        replica=replica.id,
        url=engine.endpoint(replica.url),
        key=key,
        model=launch.model,
        streams_only=engine.streams_only,
        slots=launch.slots if local else None,
    )
