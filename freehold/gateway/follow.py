"""Follow control: hold its newest snapshot, say what runs here, ask for what is needed.

A gateway asks control for a snapshot newer than the one it has and waits for the answer; its next
question confirms that the last one is in use, which is how a revocation is known to be effective.
While control is away the gateway goes on with what it has and looks at the file that control
leaves behind. Whoever then answers on control's port is not believed, nor told anything: see
``proof``.
"""

import asyncio
import math
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import msgspec
from pyreqwest.client import Client
from pyreqwest.exceptions import PyreqwestError

from freehold.errors import EngineLost, FreeholdError, Missing, NoCapacity
from freehold.gateway.proof import NONCE, PROOF, challenge
from freehold.runtime.leases import Leases
from freehold.runtime.standing import Standing
from freehold.store.snapshot import Route, Snapshot, Target, read_snapshot

HOLD = 1.0
"""Seconds control holds an unanswered question; also the beat of the load report."""
RETRY = 0.2
BELIEVED = HOLD + 2.0
"""Seconds for which an answer of control proves that it is there; its death is noticed sooner."""
ABSENT = 2.0
"""Seconds without an answer after which control is said to be away."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway sends: its name, the revision it works from, what runs on it."""

    gateway: str
    revision: int
    inflight: dict[str, int]
    used: dict[str, float]
    door: Standing = Standing()


class Follower:
    """Keeps ``snapshot`` current. One a gateway process."""

    def __init__(
        self,
        name: str,
        path: Path,
        client: Client,
        leases: Leases,
        clock: Callable[[], float],
        standing: Callable[[], Standing],
    ) -> None:
        self.snapshot: Snapshot = read_snapshot(path)
        self._name = name
        self._path = path
        self._client = client
        self._leases = leases
        self._clock = clock
        self._standing = standing
        self._changed = asyncio.Event()
        self._heard = asyncio.Event()
        self._verified = -math.inf

    @property
    def has_control(self) -> bool:
        """Say whether who answers at control's address proved just now to be control."""
        return asyncio.get_running_loop().time() - self._verified <= BELIEVED

    async def finds_control(self) -> bool:
        """Say whether control is there; one that is only late to answer is waited for a while."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + ABSENT
        while not self.has_control and (left := deadline - loop.time()) > 0:
            self._heard.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._heard.wait(), left)
        return self.has_control

    async def follow(self) -> None:
        """Run for the life of the process."""
        while True:
            try:
                await self._ask()
                self._verified = asyncio.get_running_loop().time()
                self._heard.set()
            except (PyreqwestError, msgspec.DecodeError, FreeholdError):
                self._verified = -math.inf
                self._reread()
                await asyncio.sleep(RETRY)

    async def wake(self, deployment: str) -> None:
        """Tell control that somebody needs a deployment; without control nothing can load."""
        with suppress(PyreqwestError, FreeholdError):
            await self._post(f"/internal/wake/{deployment}", b"", HOLD)

    async def until_ready(
        self, deployment: str, tried: Collection[Target], patience: float
    ) -> Route:
        """Return the route once it has a replica that was not tried; else say why it has none."""
        deadline = asyncio.get_running_loop().time() + patience
        while True:
            route = self.snapshot.routes.get(deployment)
            if route is None:
                raise Missing("missing.deployment", f"{deployment} was undeployed", param="model")
            if any(target not in tried for target in route.targets):
                return route
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0 or route.state in ("failed", "missing"):
                raise _not_ready(route)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)

    async def _ask(self) -> None:
        question = Question(
            gateway=self._name,
            # Who is not known to be control yet is asked for an answer at once.
            revision=self.snapshot.revision if self.has_control else -1,
            inflight=self._leases.inflight,
            used=self._leases.used,
            door=self._standing(),
        )
        body = await self._post("/internal/follow", msgspec.json.encode(question), HOLD + 4)
        if body:
            self._take(msgspec.json.decode(body, type=Snapshot))

    async def _post(self, path: str, body: bytes, limit: float) -> bytes:
        snapshot = self.snapshot
        if not snapshot.control_url:
            raise NoCapacity("unavailable.control", "control has not started yet", retry_after=1)
        own = challenge(snapshot.control_secret)
        request = self._client.post(snapshot.control_url + path).body_bytes(body)
        request = request.header(NONCE, own.nonce).header(PROOF, own.ask(path.encode(), body))
        response = await request.timeout(timedelta(seconds=limit)).build().send()
        if response.status not in (200, 204):
            raise NoCapacity("unavailable.control", f"control answered {response.status}")
        answer = (await response.bytes()).to_bytes()
        if not own.holds(response.get_header(PROOF), own.answer(answer)):
            raise NoCapacity("unavailable.control", "what answers there is not control")
        return answer

    def _reread(self) -> None:
        with suppress(FreeholdError, OSError):
            found = read_snapshot(self._path)
            if found.revision > self.snapshot.revision:
                self._take(found)

    def _take(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._leases.forget(
            {target.replica for route in snapshot.routes.values() for target in route.targets}
        )
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _not_ready(route: Route) -> FreeholdError:
    if route.state == "ready":
        return EngineLost(
            "unavailable.engine_lost",
            f"no replica of {route.deployment} answers: they are being restarted, try again",
            retry_after=1,
        )
    if route.state == "failed":
        return EngineLost(
            "unavailable.engine_failed",
            f"{route.deployment} cannot be loaded: {route.reason}",
            retry_after=5,
        )
    if route.state == "missing":
        return NoCapacity(
            "unavailable.model", f"{route.deployment} cannot run: {route.reason}", retry_after=30
        )
    text = f"{route.deployment} is loading ({route.progress:.0%})"
    if route.reason:
        text += f": {route.reason}"
    return NoCapacity(
        "unavailable.loading",
        f"{text}; retry, or send the header Prefer: wait=60",
        retry_after=2,
        details={"progress": route.progress, "state": route.state},
    )
