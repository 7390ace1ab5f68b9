"""Control: one process that holds the desired state and keeps making it so.

The admin API and the command line call its parts; ``run`` is its loop. Everything it does can be
interrupted by a kill at any point: state is in the database, processes are found again.
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec
from pyreqwest.client import Client

from freehold.control.deployments import AliasEntry, Deployments, Document
from freehold.control.gateways import Gateways
from freehold.control.home import Home, write_secret
from freehold.control.jobs import Job, Jobs
from freehold.control.keys import Keys, NewKey
from freehold.control.publish import Publisher, routes
from freehold.errors import FreeholdError
from freehold.models.pipeline import Arrival, Workshop, bring_in
from freehold.models.registry import Registry, Version
from freehold.models.source import Progress
from freehold.record.journal import Journal
from freehold.record.ledger import take_in_journals
from freehold.runtime.engine import Engine
from freehold.runtime.pool import Pool
from freehold.settings import Settings
from freehold.store.blobs import Blobs
from freehold.store.database import Database
from freehold.store.snapshot import KeyGrant, Route

BEAT = 0.1
LEDGER_EVERY = 2.0
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
    deployments: Deployments
    keys: Keys
    jobs: Jobs
    publisher: Publisher
    pool: Pool
    gateways: Gateways
    engines: Mapping[str, Engine]
    journal: Journal
    client: Client
    clock: Callable[[], float]
    url: str = ""
    secret: str = ""
    public_url: str = ""
    serving: bool = False
    starting: bool = True
    came_up: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    grants: Mapping[str, KeyGrant] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the desired state true until ``stop``."""
        ledger_at = 0.0
        while not stop.is_set():
            now = self.clock()
            self.reconcile()
            await self.pool.probe(now)
            self.gateways.watch()
            if now - ledger_at >= LEDGER_EVERY:
                await self.take_in_records()
                ledger_at = now
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), BEAT)

    def reconcile(self) -> None:
        """One step: processes towards plans, then tell gateways."""
        wishes = [plan.desired for plan in self.deployments.plans() if plan.desired]
        load = self.publisher.load(self.gateways.names)
        self.pool.reconcile(wishes, load, self.clock())
        self.publish()

    def publish(self) -> int:
        """Put the present state in force; return its revision."""
        routes = self.routes()
        waiting = any(r.state == "loading" and r.reason is None for r in routes.values())
        if not self.starting and not waiting:
            self.came_up.set()
        return self.publisher.publish(
            self.grants, routes, self.url, self.secret, ready=self.came_up.is_set()
        )

    def routes(self) -> dict[str, Route]:
        """Return every deployment as gateways see it."""
        plans, updated = self.deployments.plans(), self.deployments.updated()
        return routes(plans, self.pool, self.engines, updated)

    async def keys_changed(self) -> None:
        """Put a change of keys in force in every gateway, at once.

        A gateway that does not confirm is stopped rather than trusted with a revoked key.
        """
        self.grants = self.keys.grants()
        revision = self.publish()
        if not self.serving:
            return
        for name in await self.publisher.in_force(revision, self.gateways.names, IN_FORCE_WITHIN):
            self.gateways.kill(name)

    def ensure_admin(self) -> NewKey | None:
        """Make the first administrator's key on the first start."""
        if self.home.admin_key.exists() and self.keys.grants():
            return None
        created = self.keys.create("admin", "admin", None, self.clock())
        write_secret(self.home.admin_key, created.key)
        return created

    async def changed(self) -> None:
        """Put a change of the desired state in force, in every gateway that answers."""
        self.deployments.forget_plans()
        if not self.serving:
            return
        self.reconcile()
        revision = self.publisher.snapshot.revision
        await self.publisher.in_force(revision, self.gateways.names, IN_FORCE_WITHIN)

    async def until_up(self, deployment: str, patience: float) -> None:
        """Wait until gateways send requests to a deployment, or it is known not to come up."""
        deadline = self.clock() + patience
        while self.serving and self.clock() < deadline:
            await self.changed()
            route = self.publisher.snapshot.routes.get(deployment)
            if route is None or route.state in ("ready", "failed", "missing"):
                return
            await asyncio.sleep(BEAT)

    def bring_in(self, arrival: Arrival, by: str, progress: Progress) -> tuple[Version, bool]:
        """Run the path of a model; blocks."""
        return bring_in(arrival, self.workshop, progress, self.clock(), by)

    def start_import(self, arrival: Arrival, by: str, aliases: tuple[AliasEntry, ...] = ()) -> Job:
        """Start an import, or join the same one under way; then point aliases at what came."""
        loop = asyncio.get_running_loop()

        def work(progress: Progress) -> dict[str, object]:
            version, new = self.bring_in(arrival, by, progress)
            self.deployments.point_aliases(aliases, self.clock(), by)
            loop.call_soon_threadsafe(self.deployments.forget_plans)
            return {"model": version.row.model, "version": version.row.number, "new": new}

        return self.jobs.start("import", f"{arrival.source} as {arrival.name}", work)

    def start_verify(self, version: Version) -> Job:
        """Start reading a version's bytes again."""

        def work(progress: Progress) -> dict[str, object]:
            for artifact in version.artifacts:
                self.blobs.verify(artifact.digest, lambda n, of: progress("verify", n, of))
            digests = [artifact.digest for artifact in version.artifacts]
            return {"model": version.row.model, "version": version.row.number, "digests": digests}

        return self.jobs.start("verify", f"{version.row.model}:{version.row.number}", work)

    def apply(self, document: Document, by: str) -> list[Job]:
        """Make the desired state that of a document; return the imports this starts."""
        now = self.clock()
        wanted = {deployment.name for deployment in document.deployments}
        for deployment in document.deployments:
            self.deployments.put(deployment, now, by)
        for present in self.deployments.all():
            if present.name not in wanted:
                self.deployments.remove(present.name)
        self.deployments.point_aliases(document.aliases, now, by)
        have = {(entry.name, entry.sha256) for entry in self.deployments.document().models}
        missing = [entry for entry in document.models if (entry.name, entry.sha256) not in have]
        return [
            self.start_import(
                Arrival(source=entry.source, name=entry.name, sha256=entry.sha256),
                by,
                document.aliases,
            )
            for entry in missing
        ]

    async def take_in_records(self) -> None:
        """Bring the tables of records and usage up to the journals."""
        with suppress(FreeholdError):
            await asyncio.to_thread(take_in_journals, self.database, self.home.audit)

    async def close(self) -> None:
        """Let go of everything but processes."""
        await self.jobs.stop()
        self.journal.close()
        await self.client.close()
        self.database.close()


def new_secret() -> str:
    """Return a secret for one life of control."""
    return secrets.token_urlsafe(24)


def verified_weights(blobs: Blobs) -> Callable[[str], Path]:
    """Return what the pool calls before a load: no unverified byte reaches an engine."""

    def check(digest: str) -> Path:
        blobs.verify(digest)
        return blobs.path(digest)

    return check
