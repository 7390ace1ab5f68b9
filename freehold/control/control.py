"""Control: one process that holds the desired state and keeps making it so.

The admin API and the command line call its parts; ``run`` is its loop. Everything it does can be
interrupted by a kill at any point: state is in the database, processes are found again.
"""

import asyncio
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import msgspec
from pyreqwest.client import Client

from freehold.control.arrivals import chains
from freehold.control.beat import keep
from freehold.control.deployments import CONVERTED, Change, Deployments, Document, ModelEntry
from freehold.control.feasible import check_document
from freehold.control.gateways import Gateways
from freehold.control.home import Home, write_secret
from freehold.control.jobs import Job, Jobs
from freehold.control.keys import ADMIN, Keys, NewKey
from freehold.control.limits import (
    Limits,
    by_subject,
    differing,
    identity,
    read_entry,
    write_entry,
)
from freehold.control.limits import replace as replace_limits
from freehold.control.publish import Publisher, routes
from freehold.control.pushes import Pushes
from freehold.control.remade import arrival_of, remade
from freehold.control.repositories import Repositories
from freehold.control.spending import Spending
from freehold.control.upstream_keys import UpstreamKeys
from freehold.errors import FreeholdError
from freehold.models.compress.compressor import Compressor
from freehold.models.compress.request import Request
from freehold.models.fetch import find, is_held
from freehold.models.papers import Papers
from freehold.models.pipeline import Arrival, Workshop, bring_in
from freehold.models.registry import Registry, Version
from freehold.models.room import Room
from freehold.models.source import Progress
from freehold.models.upkeep import Storage, Upkeep
from freehold.policy.quotas import describe
from freehold.record.journal import Journal
from freehold.record.ledger import forget_old, take_in_journals
from freehold.runtime.builds import Builds
from freehold.runtime.circuits import Circuits
from freehold.runtime.engine import Engine
from freehold.runtime.pool import Pool
from freehold.runtime.replica import Replica
from freehold.settings import Settings
from freehold.store.blobs import Blobs
from freehold.store.database import Database
from freehold.store.snapshot import KeyGrant, Limit, Route

BEAT = 0.1
LEDGER_EVERY = 2.0
LEDGER_PAUSE = 0.02
FORGET_EVERY = 3600.0
IN_FORCE_WITHIN = 3.0


class Control(msgspec.Struct, kw_only=True):
    """The parts of control, put together in ``app/control.py``, and what joins them.

    ``url`` and ``secret`` are how gateways reach this process, ``public_url`` is where they serve.
    ``starting`` lasts until the first steps are done; ``came_up`` is set at the first moment after
    that in which nothing is loading.
    """

    home: Home
    settings: Settings
    database: Database
    blobs: Blobs
    registry: Registry
    workshop: Workshop
    papers: Papers
    repositories: Repositories
    pushes: Pushes
    deployments: Deployments
    keys: Keys
    limits: Limits
    spending: Spending
    jobs: Jobs
    publisher: Publisher
    pool: Pool
    gateways: Gateways
    engines: Mapping[str, Engine]
    compressors: Mapping[str, Compressor]
    journal: Journal
    client: Client
    clock: Callable[[], float]
    circuits: Circuits
    room: Room
    upkeep: Upkeep
    builds: Builds
    loop: asyncio.AbstractEventLoop
    url: str = ""
    secret: str = ""
    public_url: str = ""
    serving: bool = False
    starting: bool = True
    bookkeeper: Executor = msgspec.field(default_factory=lambda: ThreadPoolExecutor(1, "ledger"))
    caretaker: Executor = msgspec.field(default_factory=lambda: ThreadPoolExecutor(1, "upkeep"))
    stock: Storage | None = None
    yard: threading.Lock = msgspec.field(default_factory=threading.Lock)
    upstream_keys: UpstreamKeys = msgspec.field(default_factory=UpstreamKeys)
    came_up: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    compressing: dict[str, Request] = msgspec.field(default_factory=dict)
    grants: Mapping[str, KeyGrant] = {}
    in_force: tuple[Limit, ...] = ()
    turn: asyncio.Lock = msgspec.field(default_factory=asyncio.Lock)

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the desired state true until ``stop``. No act waits for another, or ends it."""
        await asyncio.gather(
            keep("the beat", self.reconcile, BEAT, stop),
            keep("saving the snapshot", self.publisher.save, BEAT, stop),
            keep("watching gateways", self.gateways.watch, BEAT, stop),
            keep("watching engines", self.probe, BEAT, stop),
            keep("watching limits", self.watch_spending, BEAT, stop),
            keep("taking in records", self.take_in_records, LEDGER_EVERY, stop),
            keep("forgetting old records", self.forget_records, FORGET_EVERY, stop),
            keep("forgetting old minutes", self.purge_spending, FORGET_EVERY, stop),
            keep("sweeping the registry", self.sweep_registry, FORGET_EVERY, stop),
        )

    def probe(self) -> None:
        """Ask engines for their health."""
        self.pool.probe(time.monotonic())

    def reconcile(self) -> None:
        """One step: processes towards plans, then tell gateways."""
        wishes = [plan.desired for plan in self.deployments.plans() if plan.desired]
        load = self.publisher.load(self.gateways.names)
        self.pool.reconcile(wishes, load, time.monotonic())
        self.publish()

    def publish(self) -> int:
        """Put the present state in force; return its revision."""
        routes = self.routes()
        waiting = any(r.state == "loading" and r.reason is None for r in routes.values())
        if not self.starting and not waiting:
            self.came_up.set()
        return self.publisher.publish(
            self.grants,
            routes,
            self.url,
            self.secret,
            ready=self.came_up.is_set(),
            limits=by_subject(self.in_force),
        )

    def routes(self) -> dict[str, Route]:
        """Return every deployment as gateways see it."""
        plans, updated = self.deployments.plans(), self.deployments.updated()
        return routes(plans, self.pool, self.engines, updated, self.upstream_keys.resolve)

    def circuit(self, replica: Replica) -> str:
        """Return what gateways think of a replica."""
        if replica.url is None:
            return "closed"
        url = self.engines[replica.launch.engine].endpoint(replica.url)
        return self.circuits.state(replica.id, url)

    def is_failing(self, replica: Replica) -> bool:
        """Say whether gateways find that a replica does not answer."""
        if replica.url is None:
            return False
        url = self.engines[replica.launch.engine].endpoint(replica.url)
        return self.circuits.is_failing(replica.id, url)

    async def keys_changed(self, *, trusting: bool = False) -> None:
        """Put a change of keys or limits in force in every gateway, at once.

        A gateway that does not confirm is stopped rather than trusted with a revoked key; where
        nothing was taken away it is trusted, and follows when it can.
        """
        self.grants = self.keys.grants()
        await self._take_limits()
        revision = self.publish()
        if not self.serving:
            return
        for name in await self.publisher.in_force(revision, self.gateways.names, IN_FORCE_WITHIN):
            if not trusting:
                self.gateways.kill(name)
        await asyncio.to_thread(self.spending.use, self.in_force)

    async def _take_limits(self) -> None:
        """Have the limits in force that are written, once their cells hold nothing of before.

        What the cells of a limit hold counts from when every gateway knows of it: until this is
        done none hears of it, and who counts at this moment is waited for elsewhere.
        """
        async with self.turn:
            wanted = tuple(self.limits.all())
            if others := differing(self.in_force, wanted):
                await asyncio.to_thread(self.spending.forget, others)
            self.in_force = wanted

    async def limits_changed(self) -> None:
        """Put a change of limits in force, like one of keys."""
        await self.keys_changed()

    async def watch_spending(self) -> None:
        """Keep the shared numbers right when a board is damaged or the clock goes back."""
        with suppress(FreeholdError):
            if self.spending.is_damaged():
                self.spending.start(self.in_force, self.gateways.kill_all)
            told = self.publisher.load(self.gateways.names).settled
            await self.spending.watch(told=told)

    async def purge_spending(self) -> None:
        """Delete minutes of spending that no limit can come back to."""
        purge = partial(self.spending.purge, LEDGER_PAUSE)
        await asyncio.get_running_loop().run_in_executor(self.bookkeeper, purge)

    def ensure_admin(self) -> NewKey | None:
        """Write a new ``HOME/admin.key`` where there is none in force, as on the first start."""
        now = self.clock()
        if self.keys.can_administer(self.home.read_admin_key(), now):
            return None
        kept = partial(write_secret, self.home.admin_key)
        return self.keys.create(ADMIN, ADMIN, None, now, kept=kept)

    async def changed(self) -> None:
        """Put a change of the desired state in force, in every gateway that answers."""
        self.deployments.forget_plans()
        if not self.serving:
            return
        self.reconcile()
        revision = self.publisher.snapshot.revision
        await self.publisher.in_force(revision, self.gateways.names, IN_FORCE_WITHIN)

    def wake(self, deployment: str) -> None:
        """Load what a request waits for: a deployment, or the one whose replicas serve it."""
        plans = self.deployments.plans()
        host = next((p.host for p in plans if p.deployment.name == deployment), None)
        self.pool.wake(host or deployment)

    async def until_up(self, deployment: str, patience: float) -> None:
        """Wait until gateways send requests to a deployment, or it is known not to come up."""
        deadline = time.monotonic() + patience
        while self.serving and time.monotonic() < deadline:
            await self.changed()
            route = self.publisher.snapshot.routes.get(deployment)
            if route is None or route.state in ("ready", "failed", "missing"):
                return
            await asyncio.sleep(BEAT)

    def bring_in(self, arrival: Arrival, by: str, progress: Progress) -> tuple[Version, bool]:
        """Run the path of a model within its quotas; blocks."""
        with self.room.claim(by) as claim:
            origin = find(self.workshop.sources, arrival.source)[1]
            digest = arrival.sha256 or origin.sha256
            if digest is None or not is_held(digest, self.blobs):
                claim.need(origin.bytes or 0)
            found = bring_in(arrival, self.workshop, claim.watch(progress), self.clock(), by)
        if found[0].damage is not None:  # its bytes were read, or brought anew
            for artifact in found[0].artifacts:
                self.upkeep.verify(artifact.digest)
        return found

    def start_import(self, arrival: Arrival, by: str) -> Job:
        """Start an import, or join the same one under way."""
        return self._start_imports([arrival], Document(), by)

    def _start_imports(
        self, steps: Sequence[Arrival | ModelEntry], document: Document, by: str
    ) -> Job:
        """Import one after the other, so that numbers follow their order; then label what came."""
        loop = asyncio.get_running_loop()

        def work(progress: Progress) -> dict[str, object]:
            for step in steps:
                if isinstance(step, ModelEntry) and step.source.startswith(CONVERTED):
                    now = self.clock()
                    version, new = remade(step, self.workshop, progress, now, by)
                    continue
                arrival = arrival_of(step, self.registry) if isinstance(step, ModelEntry) else step
                version, new = self.bring_in(arrival, by, progress)
            self.deployments.set_launch_settings(document.models, self.clock(), by)
            self.deployments.point_aliases(document.aliases, self.clock(), by)
            loop.call_soon_threadsafe(self.deployments.forget_plans)
            return {"model": version.row.model, "version": version.row.number, "new": new}

        sources = ", ".join(step.source for step in steps)
        names = ", ".join(dict.fromkeys(step.name for step in steps if step.name))
        subject = f"{sources} as {names}" if names else sources
        return self.jobs.start("import", subject, work, same=(list(steps), document))

    def start_verify(self, version: Version) -> Job:
        """Start reading a version's bytes again."""

        def work(progress: Progress) -> dict[str, object]:
            for artifact in version.artifacts:
                self.upkeep.verify(artifact.digest, lambda n, of: progress("verify", n, of))
            digests = [artifact.digest for artifact in version.artifacts]
            return {"model": version.row.model, "version": version.row.number, "digests": digests}

        return self.jobs.start("verify", f"{version.row.model}:{version.row.number}", work)

    def document(self) -> Document:
        """Return the whole desired state."""
        entries = tuple(write_entry(limit) for limit in self.limits.all())
        return msgspec.structs.replace(self.deployments.document(), limits=entries)

    def changes(self, document: Document) -> list[Change]:
        """Return what applying a document would do; ``Invalid`` when it could not be made so."""
        check_document(document, self.workshop, self.settings.runtime)
        found = self.deployments.changes(document)
        if document.limits is None:
            return found
        return found + limit_changes(self.limits.all(), map(read_entry, document.limits))

    def apply(self, document: Document, by: str) -> list[Job]:
        """Make the desired state that of a document; return the imports this starts."""
        now = self.clock()
        limits = None if document.limits is None else list(map(read_entry, document.limits))

        def also(connection: object) -> None:
            if limits is not None:
                replace_limits(connection, limits, now, by)

        self.deployments.apply(document, now, by, also)
        self.deployments.set_launch_settings(document.models, now, by)
        have = {(entry.name, entry.sha256) for entry in self.deployments.document().models}
        missing = [entry for entry in document.models if (entry.name, entry.sha256) not in have]
        return [self._start_imports(steps, document, by) for steps in chains(missing)]

    async def take_in_records(self) -> None:
        """Bring the tables of records and usage up to the journals."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(
            self.bookkeeper, take_in_journals, self.database, self.home.audit, LEDGER_PAUSE
        )

    async def forget_records(self) -> None:
        """Delete records that were kept for long enough."""
        if days := self.settings.audit.keep_days:
            before = self.clock() - days * 86400
            act = partial(forget_old, self.database, self.home.audit, before, LEDGER_PAUSE)
            await asyncio.get_running_loop().run_in_executor(self.bookkeeper, act)

    async def sweep_registry(self) -> None:
        """Delete uploads that nobody goes on with, and blobs that nothing names."""
        seconds = self.settings.registry.upload_seconds
        await asyncio.to_thread(self.repositories.sweep, seconds)

    async def close(self) -> None:
        """Let go of everything but processes."""
        await self.jobs.stop()
        self.upkeep.stop()
        self.caretaker.shutdown()
        self.bookkeeper.shutdown()
        self.spending.close()
        self.journal.close()
        await self.client.close()
        self.database.close()
        self.circuits.close()


def limit_changes(now: Iterable[Limit], then: Iterable[Limit]) -> list[Change]:
    """Return how limits would change; a document that has any has them all."""
    before = {identity(limit): limit for limit in now}
    after = {identity(limit): limit for limit in then}
    found = []
    for name in [*after, *(name for name in before if name not in after)]:
        act = "create" if name not in before else "change" if name in after else "remove"
        if before.get(name) != after.get(name):
            title = describe(after.get(name) or before[name])
            found.append(Change(act=act, kind="limit", name=title))
    return found


def new_secret() -> str:
    """Return a secret for one life of control."""
    return secrets.token_urlsafe(24)
