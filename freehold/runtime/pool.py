"""The pool: makes the replicas that run be the replicas that are desired.

Decisions are made elsewhere (``replica.step``, ``placement.place``); here is what has effects:
spawning, watching, killing, remembering on disk, adopting after a restart. Control calls
``reconcile`` a few times a second and whenever something changed.
"""

import asyncio
import secrets
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
from pyreqwest.client import Client
from pyreqwest.exceptions import PyreqwestError

from freehold.errors import FreeholdError, Missing
from freehold.runtime import process
from freehold.runtime.engine import Engine, Launch
from freehold.runtime.notes import Notes
from freehold.runtime.placement import place
from freehold.runtime.process import Identity
from freehold.runtime.replica import (
    Drain,
    Drained,
    Event,
    Exited,
    Loaded,
    Replica,
    Spawned,
    Want,
    may_load,
    step,
)
from freehold.runtime.wish import Desired, Load
from freehold.settings import Runtime

PROBE_EVERY = 5.0
PROBES_LOST = 3


class Pool:
    """Replicas and their processes. ``weights`` checks a digest and returns its path (blocking)."""

    def __init__(
        self,
        engines: Mapping[str, Engine],
        weights: Callable[[str], Path],
        directory: Path,
        logs: Path,
        settings: Runtime,
        client: Client,
        environment: Mapping[str, str],
        clock: Callable[[], float],
    ) -> None:
        self.replicas: dict[str, Replica] = {}
        self.waiting: Mapping[str, str] = {}
        self._engines = engines
        self._weights = weights
        self._directory = directory
        self._notes = Notes(directory, logs)
        self._settings = settings
        self._client = client
        self._environment = dict(environment)
        self._clock = clock
        self._asleep: set[str] = set()
        self._urgent: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._probed: dict[str, float] = {}
        self._lost: dict[str, int] = {}
        # Of its own: reading weights waits for no other work, and no other work for it.
        self._readers = ThreadPoolExecutor(2, "weights")
        self.room = settings.memory or int(process.machine_memory() * settings.memory_share)

    def adopt(self, now: float) -> None:
        """Take over the engines that an earlier control left running; forget the dead ones."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in sorted(self._directory.glob("*.json")):
            with suppress(FreeholdError):
                replica = process.read_private(path, Replica)
                if process.is_alive(_identity(replica)):
                    self.replicas[replica.id] = replica
                    self._observe(replica.id, now)
                    continue
            self._notes.forget(path.stem)
        known = {replica.pid for replica in self.replicas.values()}
        for identity in process.owned_by(self._directory):
            if identity.pid not in known:
                process.send(identity, signal.SIGKILL)

    def wake(self, deployment: str) -> None:
        """A request or an operator waits for this deployment: load it, make room if need be."""
        self._asleep.discard(deployment)
        self._urgent.add(deployment)

    def reconcile(self, desired: Sequence[Desired], load: Load, now: float) -> None:
        """Bring what runs one step nearer to what is desired; never blocks."""
        for replica_id in list(self.replicas):
            self._observe(replica_id, now)
        for replica_id, used in load.used.items():
            self._touch(replica_id, used)
        self._notes.write_again(self.replicas)
        # First of all: what leaves in this very step, no gateway has heard of.
        self._end_drained(load, now)
        wishes = {wish.deployment: wish for wish in desired}
        self._match_launches(wishes, now)
        self._unload_idle(wishes, load, now)
        self._place(wishes, load, now)
        self._bury()

    def replicas_of(self, deployment: str) -> list[Replica]:
        """Return a deployment's replicas that are not on their way out."""
        return [
            replica
            for replica in self.replicas.values()
            if replica.launch.deployment == deployment
            and replica.state not in ("draining", "stopped")
        ]

    def is_asleep(self, deployment: str) -> bool:
        """Say whether a deployment was unloaded and loads again on its next request."""
        return deployment in self._asleep

    def progress(self, replica: Replica) -> float:
        """Return 0 to 1: how much of a loading replica's weights is in its memory."""
        if replica.state == "ready":
            return 1.0
        if replica.state != "loading" or replica.pid is None or not replica.launch.weights:
            return 0.0
        resident = process.resident_of(replica.pid)
        return round(min(0.99, resident / max(1, replica.launch.bytes)), 2)

    def resident(self, replica: Replica) -> int:
        """Return the bytes a replica's process holds in memory now."""
        return process.resident_of(replica.pid) if replica.pid is not None else 0

    def probe(self, now: float) -> None:
        """Ask each ready local engine for its health; one that stays silent is taken for lost.

        The questions are on their way when this returns: no engine waits for another's answer.
        """
        for known in self._probed.keys() - self.replicas.keys():
            del self._probed[known]
            self._lost.pop(known, None)
        for replica in list(self.replicas.values()):
            if replica.state != "ready" or replica.pid is None:
                continue
            if now - self._probed.get(replica.id, replica.since) >= PROBE_EVERY:
                self._probed[replica.id] = now
                self._run(self._look(replica))

    def _engine(self, launch: Launch) -> Engine:
        engine = self._engines.get(launch.engine)
        if engine is None:
            text = f"there is no engine {launch.engine}: allow its plugin, or deploy otherwise"
            raise Missing("missing.engine", text)
        return engine

    async def _look(self, replica: Replica) -> None:
        if await self._answers(replica):
            self._lost.pop(replica.id, None)
            return
        current = self.replicas.get(replica.id)
        if current is None or current.pid != replica.pid:
            return
        self._lost[replica.id] = self._lost.get(replica.id, 0) + 1
        if self._lost[replica.id] >= PROBES_LOST:
            self._lost.pop(replica.id)
            process.send(_identity(replica), signal.SIGKILL)
            reason = "stopped answering its health check"
            self._apply(replica.id, Exited(reason), self._clock())

    def stop_all(self) -> None:
        """End every engine process: a clean shutdown, not a restart of control."""
        for task in self._tasks:
            task.cancel()
        for replica in self.replicas.values():
            if replica.pid is not None:
                process.send(_identity(replica), signal.SIGKILL)
            self._notes.forget(replica.id)
        self.replicas.clear()
        self._readers.shutdown(wait=False, cancel_futures=True)

    def leave_all(self) -> None:
        """Let engine processes run on without us."""
        for task in self._tasks:
            task.cancel()
        self._readers.shutdown(wait=False, cancel_futures=True)

    def _match_launches(self, wishes: Mapping[str, Desired], now: float) -> None:
        """Create what is missing; drain what nobody wants once its successor can answer."""
        for wish in wishes.values():
            missing = list(wish.launches)
            surplus: list[Replica] = []
            for replica in self.replicas_of(wish.deployment):
                if replica.launch in missing:
                    missing.remove(replica.launch)
                else:
                    surplus.append(replica)
            for launch in missing:
                self._create(launch, now)
                self.wake(wish.deployment)
            if not surplus:
                continue
            # Without room for both, a successor can only come up once the old one has gone.
            heir = wishes.get(wish.follows or wish.deployment, wish)
            current = [r for r in self.replicas_of(heir.deployment) if r.launch in heir.launches]
            blocked = any(r.id in self.waiting for r in current)
            come = current or not heir.launches
            if blocked or (come and all(r.state == "ready" for r in current)):
                for replica in surplus:
                    self._apply(replica.id, Drain(), now)
        for replica in list(self.replicas.values()):
            if replica.launch.deployment not in wishes:
                self._apply(replica.id, Drain(), now)

    def _unload_idle(self, wishes: Mapping[str, Desired], load: Load, now: float) -> None:
        for wish in wishes.values():
            if not wish.idle_unload:
                continue
            for replica in self.replicas_of(wish.deployment):
                quiet = now - max(replica.used, replica.since) >= wish.idle_unload
                busy = load.inflight.get(replica.id)
                if replica.state == "ready" and replica.pid and quiet and not busy:
                    self._sleep(replica, now)

    def _place(self, wishes: Mapping[str, Desired], load: Load, now: float) -> None:
        awake = [name for name in wishes if name not in self._asleep]
        order = sorted(awake, key=lambda name: name not in self._urgent)
        wanted = [
            replica.id
            for name in order
            for replica in self.replicas_of(name)
            if may_load(replica, now) and replica.launch in wishes[name].launches
        ]
        urgent = [replica.id for name in self._urgent for replica in self.replicas_of(name)]
        decision = place(
            list(self.replicas.values()), wanted, urgent, load.inflight, self.room, now
        )
        for replica_id in decision.unload:
            self._sleep(self.replicas[replica_id], now)
        for replica_id in decision.load:
            self._apply(replica_id, Want(), now)
        self.waiting = decision.waiting
        self._urgent = {
            name
            for name in self._urgent
            if any(r.state in ("idle", "loading") for r in self.replicas_of(name))
        }

    def _end_drained(self, load: Load, now: float) -> None:
        for replica in list(self.replicas.values()):
            if replica.state == "draining":
                left = load.settled and replica.id not in load.offered
                quiet = left and not load.inflight.get(replica.id)
                overdue = now - replica.since >= self._settings.drain_timeout
                if quiet or overdue:
                    self._apply(replica.id, Drained(), now)

    def _bury(self) -> None:
        for replica in list(self.replicas.values()):
            if replica.state == "stopped":
                self._notes.forget(replica.id)
                del self.replicas[replica.id]

    def _sleep(self, replica: Replica, now: float) -> None:
        """Unload a replica and leave an idle one in its place, to load on the next request."""
        self._asleep.add(replica.launch.deployment)
        self._apply(replica.id, Drain(), now)
        self._create(replica.launch, now)

    def _create(self, launch: Launch, now: float) -> None:
        replica = Replica(id=secrets.token_hex(6), launch=launch, since=now)
        self.replicas[replica.id] = replica

    def _touch(self, replica_id: str, used: float) -> None:
        replica = self.replicas.get(replica_id)
        used = min(used, self._clock())
        if replica is not None and used > replica.used:
            self.replicas[replica_id] = msgspec.structs.replace(replica, used=used)

    def _observe(self, replica_id: str, now: float) -> None:
        """Look at the process behind a replica and turn what is seen into an event."""
        replica = self.replicas[replica_id]
        if replica.pid is None:
            return
        if not process.is_alive(_identity(replica)):
            self._apply(replica_id, Exited(self._notes.last_words(replica)), now)
        elif replica.state == "loading":
            with suppress(OSError, UnicodeDecodeError):
                url = self._notes.ready_file(replica_id).read_text(encoding="ascii").strip()
                self._apply(replica_id, Loaded(url), now)
                return
            if now - replica.since > self._settings.load_timeout:
                process.send(_identity(replica), signal.SIGKILL)
                limit = self._settings.load_timeout
                self._apply(replica_id, Exited(f"did not load within {limit:.0f} s"), now)

    def _apply(self, replica_id: str, event: Event, now: float) -> None:
        before = self.replicas.get(replica_id)
        if before is None:
            return
        after, acts = step(before, event, now)
        self.replicas[replica_id] = after
        for act in acts:
            if act == "spawn":
                self._run(self._spawn(after))
            elif before.pid is not None:
                process.send(_identity(before), signal.SIGKILL)
        if after.pid is not None:
            self._notes.write(after)
        elif before.pid is not None:
            self._notes.forget(replica_id)

    async def _spawn(self, replica: Replica) -> None:
        """Verify the weights and start the process; every failure becomes ``Exited``."""
        launch = replica.launch
        secret = secrets.token_urlsafe(24)
        ready = self._notes.ready_file(replica.id)
        try:
            engine = self._engine(launch)
            weights = Path() if launch.weights is None else await self._verified(launch.weights)
            beside: dict[str, Any] = {}  # engines that know of none are told of none
            if launch.adapters:
                found = [await self._verified(digest) for digest in launch.adapters]
                beside["adapters"] = tuple(found)
            if launch.draft is not None:
                beside["draft"] = await self._verified(launch.draft)
            command = engine.command(launch, weights, secret, ready, **beside)
            if command is None:
                self._apply(replica.id, Spawned(None, None, None), self._clock())
                self._apply(replica.id, Loaded(launch.url or ""), self._clock())
                return
            ready.unlink(missing_ok=True)
            identity = process.spawn(
                command.argv,
                self._notes.log(replica),
                payload=command.payload,
                environment=self._environment,
                owner=self._directory,
            )
        except Exception as error:  # noqa: BLE001 - an engine may be anybody's: it fails alone
            self._apply(replica.id, Exited(_why(error)), self._clock())
            return
        current = self.replicas.get(replica.id)
        if current is None or current.state != "loading":
            process.send(identity, signal.SIGKILL)
            return
        self._apply(replica.id, Spawned(identity.pid, identity.started, secret), self._clock())

    async def _verified(self, digest: str) -> Path:
        """Return where bytes lie that were read and are right."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self._weights, digest)

    async def _answers(self, replica: Replica) -> bool:
        request = self._client.get(f"{replica.url}/health").timeout(timedelta(seconds=PROBE_EVERY))
        try:
            response = await request.bearer_auth(replica.secret or "").build().send()
        except PyreqwestError:
            return False
        return response.status == 200

    def _run(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _why(error: Exception) -> str:
    named = isinstance(error, FreeholdError | OSError)
    return str(error) if named else f"{type(error).__name__}: {error}"


def _identity(replica: Replica) -> Identity:
    assert replica.pid is not None
    assert replica.started is not None
    return Identity(replica.pid, replica.started)
