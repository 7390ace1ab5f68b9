"""Publish snapshots to gateways, and know which gateway works from which."""

import asyncio
import hashlib
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from freehold.errors import FreeholdError, Missing
from freehold.models.deploy import Plan
from freehold.models.deployment import Deployment, micro_units, place_of
from freehold.runtime.engine import Engine
from freehold.runtime.pool import Pool
from freehold.runtime.replica import Replica
from freehold.runtime.standing import Standing
from freehold.runtime.wish import Load
from freehold.store.snapshot import (
    KeyGrant,
    Limit,
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
    door: Standing = Standing()


class Publisher:
    """Holds the snapshot in force. Questions are held open until there is something newer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self.snapshot = read_snapshot(path)
        except FreeholdError:
            self.snapshot = Snapshot()
        # Never a number that a gateway knows for an older state, also when the file was lost.
        newer = max(self.snapshot.revision, time.time_ns() // 1000)
        self.snapshot = msgspec.structs.replace(self.snapshot, revision=newer)
        self._saved = False
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
        limits: Mapping[str, tuple[Limit, ...]] | None = None,
    ) -> int:
        """Put a new snapshot in force if anything differs; return the revision in force."""
        now = self.snapshot
        following = Snapshot(
            revision=now.revision,
            ready=ready,
            keys=dict(keys),
            routes=dict(routes),
            limits=dict(limits or {}),
            control_url=url,
            control_secret=secret,
        )
        if following != now:
            self.snapshot = msgspec.structs.replace(following, revision=now.revision + 1)
            self._saved = False
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()
        with suppress(OSError):  # gateways are told anyhow, and it is tried again
            self.save()
        return self.snapshot.revision

    def save(self) -> None:
        """Write the snapshot in force to where gateways look without control, unless it is there.

        Raises ``OSError``.
        """
        if not self._saved:
            write_snapshot(self._path, self.snapshot)
            self._saved = True

    async def answer(
        self,
        gateway: str,
        revision: int,
        inflight: Mapping[str, int],
        used: Mapping[str, float],
        hold: float,
        door: Standing = Standing(),  # noqa: B008 - frozen
    ) -> Snapshot | None:
        """Take a gateway's question; return a snapshot other than the one it has, or None."""
        self.sightings[gateway] = Sighting(
            revision=revision, inflight=inflight, used=used, at=time.monotonic(), door=door
        )
        seen, self._seen = self._seen, asyncio.Event()
        seen.set()
        if revision == self.snapshot.revision:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), hold)
        return None if revision == self.snapshot.revision else self.snapshot

    async def hear(self, gateways: Iterable[str], patience: float) -> None:
        """Have the named gateways say at once how they stand; returns when all have, or too late.

        Their questions are answered without anything new, and they ask again.
        """
        begun, names = time.monotonic(), list(gateways)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while any(self._heard(name) <= begun for name in names):
                    await self._seen.wait()

    def _heard(self, name: str) -> float:
        found = self.sightings.get(name)
        return -math.inf if found is None else found.at

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
        offered = frozenset(
            target.replica for route in self.snapshot.routes.values() for target in route.targets
        )
        return Load(inflight=inflight, used=used, offered=offered, settled=settled)


def routes(
    plans: Iterable[Plan],
    pool: Pool,
    engines: Mapping[str, Engine],
    created: Mapping[str, float],
    secret: Callable[[str], str],
) -> dict[str, Route]:
    """Turn plans and running replicas into what gateways need to know.

    ``secret`` returns what a reference points at. A deployment that cannot be shown fails alone.
    """
    found: dict[str, Route] = {}
    for plan in plans:
        name = plan.deployment.name
        try:
            found[name] = _route(plan, pool, engines, int(created.get(name, 0)), secret)
        except Exception as error:  # noqa: BLE001 - engines may be anybody's, the others go on
            reason = f"{type(error).__name__}: {error}"[:300]
            found[name] = Route(
                deployment=name, engine="", place=place_of(plan.deployment), task="chat",
                state="failed", reason=reason,
            )  # fmt: skip
    return found


def _route(
    plan: Plan,
    pool: Pool,
    engines: Mapping[str, Engine],
    created: int,
    secret: Callable[[str], str],
) -> Route:
    deployment, version = plan.deployment, plan.version
    replicas = serving(plan, pool)
    ready = [replica for replica in replicas if replica.state == "ready"]
    state, reason, progress = _standing(plan, pool, replicas)
    launch = plan.launch
    targets: list[Target] = []
    for replica in sorted(ready, key=lambda replica: replica.id):
        try:
            target = _target(replica, deployment, _engine(replica, engines), secret)
            if sets := _sets(plan, replica):
                target = msgspec.structs.replace(target, sets=sets)
            if deployment.continues is not None:
                target = msgspec.structs.replace(target, continues=deployment.continues)
            targets.append(target)
        except FreeholdError as error:
            state, reason = "failed", error.message
    return Route(
        deployment=deployment.name,
        engine=launch.engine if launch else "",
        place=place_of(deployment),
        task=launch.task if launch else "chat",
        state=state,
        model=version.row.model if version else deployment.upstream_model,
        version=version.row.number if version else None,
        digest=version.row.digest if version else None,
        parameters=version.manifest.parameters if version else None,
        context=(launch.context if launch else 0) or deployment.context,
        created=created,
        progress=progress,
        reason=reason,
        fallbacks=deployment.fallbacks,
        cache_seconds=deployment.cache.seconds if deployment.cache else 0.0,
        cache_any=bool(deployment.cache and deployment.cache.any),
        setup=_setup(plan) if deployment.cache else "",
        targets=tuple(targets),
        price_in=micro_units(deployment.price_in),
        price_out=micro_units(deployment.price_out),
        slots=_slots(targets),
        deadlines=plan.deadlines,
        hedge_ms=deployment.hedge_ms,
        adapts=plan.guest is not None,
    )


def serving(plan: Plan, pool: Pool) -> list[Replica]:
    """Return the replicas that a deployment is served by: its own, or those with its adapter.

    Those are its host's, and while another host comes up also the one's before.
    """
    if plan.guest is None:
        return pool.replicas_of(plan.deployment.name)
    return [
        replica
        for replica in pool.replicas.values()
        if replica.state not in ("draining", "stopped")
        and plan.guest.adapter in replica.launch.adapters
        and replica.launch.weights in plan.guest.carriers
    ]


def _sets(plan: Plan, replica: Replica) -> str:
    """Return which adapter of a replica counts, and how much, as llama.cpp is told.

    Every one is named, also for the base: where none is, its cache of prompts mixes them up.
    """
    adapters = replica.launch.adapters
    own = plan.guest.adapter if plan.guest is not None else None
    scale = 1.0 if plan.deployment.scale is None else plan.deployment.scale
    said = [
        {"id": number, "scale": scale if digest == own else 0.0}
        for number, digest in enumerate(adapters)
    ]
    return msgspec.json.encode({"lora": said}).decode() if said else ""


def _engine(replica: Replica, engines: Mapping[str, Engine]) -> Engine:
    engine = engines.get(replica.launch.engine)
    if engine is None:
        text = f"there is no engine {replica.launch.engine}: allow its plugin, or deploy otherwise"
        raise Missing("missing.engine", text)
    return engine


def _setup(plan: Plan) -> str:
    told = (plan.launch, plan.guest and plan.guest.adapter, plan.deployment.scale)
    return hashlib.sha256(msgspec.json.encode(told)).hexdigest()[:16]


def _standing(plan: Plan, pool: Pool, replicas: Sequence[Replica]) -> tuple[str, str | None, float]:
    if any(replica.state == "ready" for replica in replicas):
        return "ready", plan.note, 1.0
    if plan.reason is not None:
        return "missing", plan.reason, 0.0
    # A further try at what failed so often is no reason to let anybody wait for it.
    failed = [replica for replica in replicas if replica.failures]
    if failed and min(replica.failures for replica in replicas) >= FAILED_AFTER:
        told = [text for text in (failed[0].reason, plan.note) if text]
        return "failed", "; ".join(told) or None, 0.0
    loading = [replica for replica in replicas if replica.state == "loading"]
    if loading:
        reason = loading[0].reason
        return "loading", reason, max(pool.progress(replica) for replica in loading)
    if failed:
        return "loading", failed[0].reason, 0.0
    waiting = next((pool.waiting[r.id] for r in replicas if r.id in pool.waiting), None)
    if pool.is_asleep(plan.host or plan.deployment.name):
        return "idle", waiting, 0.0
    return "loading", waiting, 0.0


def _slots(targets: Sequence[Target]) -> int | None:
    known = [target.slots for target in targets if target.slots is not None]
    return sum(known) if known and len(known) == len(targets) else None


def _target(
    replica: Replica, deployment: Deployment, engine: Engine, secret: Callable[[str], str]
) -> Target:
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
        slots=launch.slots if local else deployment.slots,
        weight=launch.weight,
        trust=launch.trust,
        continues=engine.continues,
    )
