"""Replicas as processes: drained ones, silent ones, those nobody wrote down, full disks."""

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from pyreqwest.client import ClientBuilder

from freehold.runtime import process
from freehold.runtime.engine import Command, Launch
from freehold.runtime.pool import PROBE_EVERY, Pool
from freehold.runtime.process import Identity
from freehold.runtime.replica import Replica
from freehold.runtime.wish import Desired, Load
from freehold.settings import Runtime

CHILD = """
import sys, time
sys.stdin.read()
open({ready!r}, "w").write("http://127.0.0.1:9")
time.sleep(60)
"""
LAUNCH = Launch(deployment="d", engine="e", model="m", weights="w", bytes=1)
WISH = Desired(deployment="d", launches=(LAUNCH,))


engine_got: list[Path] = []


class Engine:
    streams_only = False
    continues = None

    def command(
        self,
        launch: Launch,
        weights: Path,
        secret: str,
        ready: Path,
        adapters: tuple[Path, ...] = (),
    ) -> Command:
        engine_got.extend(adapters)
        if launch.model == "broken":
            raise RuntimeError("a plugin's own fault")
        argv = (sys.executable, "-c", CHILD.format(ready=str(ready)))
        return Command(argv=argv, payload=b"")

    def endpoint(self, url: str) -> str:
        return url


def make(folder: Path) -> Pool:
    client = ClientBuilder().build()
    return Pool(
        {"e": Engine()}, lambda _: Path("/dev/null"), folder / "r", folder / "l",
        Runtime(), client, os.environ, time.monotonic,
    )  # fmt: skip


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[Pool]:
    made = make(tmp_path)
    made.adopt(time.monotonic())
    yield made
    made.stop_all()
    await made._client.close()


async def ready(pool: Pool, wish: Desired = WISH) -> Replica:
    for _ in range(500):
        pool.reconcile([wish], Load(), time.monotonic())
        found = list(pool.replicas.values())
        if found and found[0].state == "ready":
            return found[0]
        await asyncio.sleep(0.02)
    raise AssertionError(pool.replicas)


def alive(replica: Replica) -> bool:
    assert replica.pid is not None
    assert replica.started is not None
    return process.is_alive(Identity(replica.pid, replica.started))


async def test_a_replica_ends_only_once_no_gateway_can_send_to_it(pool: Pool) -> None:
    replica = await ready(pool)
    now = time.monotonic()
    # Every gateway has confirmed the newest snapshot: the one that still offers the replica.
    offered = Load(settled=True, offered=frozenset({replica.id}))
    for load in (Load(settled=True), offered, Load(settled=False)):
        pool.reconcile([], load, now)
        assert alive(replica)
    pool.reconcile([], Load(settled=True, inflight={replica.id: 1}), now)
    assert alive(replica)
    pool.reconcile([], Load(settled=True), now)
    await asyncio.sleep(0.05)
    assert not alive(replica)


async def test_a_replica_that_will_not_drain_ends_at_last(pool: Pool) -> None:
    replica = await ready(pool)
    pool.reconcile([], Load(settled=False), time.monotonic())
    pool.reconcile([], Load(settled=False), time.monotonic() + 3600)
    await asyncio.sleep(0.05)
    assert not alive(replica)


async def test_an_engine_of_which_nothing_is_written_is_ended(pool: Pool, tmp_path: Path) -> None:
    replica = await ready(pool)
    shutil.rmtree(tmp_path / "r")
    other = make(tmp_path)
    other.adopt(time.monotonic())
    assert not other.replicas
    await asyncio.sleep(0.05)
    assert not alive(replica)
    await other._client.close()


async def test_a_full_disk_costs_no_replica(pool: Pool, tmp_path: Path) -> None:
    pool.reconcile([WISH], Load(), time.monotonic())
    record = tmp_path / "r" / f"{next(iter(pool.replicas))}.json"
    obstacle = record.with_name(f"{record.name}.partial")
    obstacle.mkdir()
    await ready(pool)
    assert not record.exists()
    obstacle.rmdir()
    pool.reconcile([WISH], Load(), time.monotonic())
    assert record.exists()


@pytest.mark.parametrize(
    ("launch", "why"),
    [
        (Launch(deployment="d", engine="e", model="broken"), "RuntimeError"),
        (Launch(deployment="d", engine="denied", model="m"), "no engine denied"),
    ],
)
async def test_an_engine_that_breaks_fails_alone(pool: Pool, launch: Launch, why: str) -> None:
    wish = Desired(deployment="d", launches=(launch,))
    pool.reconcile([wish], Load(), time.monotonic())
    await asyncio.sleep(0.05)
    replica = next(iter(pool.replicas.values()))
    assert replica.state == "failed"
    assert why in (replica.reason or "")


async def test_probes_wait_for_nobody(pool: Pool) -> None:
    replica = await ready(pool)
    assert replica.pid is not None
    silent = asyncio.Event()

    async def answers(_replica: Replica) -> bool:
        await silent.wait()
        return False

    pool._answers = answers  # type: ignore[method-assign]
    now = time.monotonic()
    for later in (1, 2, 3):
        pool.probe(now + later * PROBE_EVERY * 2)
    silent.set()
    await asyncio.sleep(0.05)
    assert not alive(replica)
    assert pool.replicas[replica.id].reason == "stopped answering its health check"


async def test_last_words_are_read_from_the_end(pool: Pool, tmp_path: Path) -> None:
    replica = await ready(pool)
    log = tmp_path / "l" / "engine-d.log"
    with log.open("wb") as file:
        file.truncate(1 << 33)
        file.seek(0, os.SEEK_END)
        file.write(
            b"\n0.1 E srv init: chat template parsing error: std::exception\n"
            b"0.2 E srv init: please consider disabling jinja\n"
            b"0.3 E srv init: exiting due to model loading error\n"
            b"RuntimeError: Failed to init server, please check the input params.\n"
        )
    assert replica.pid is not None
    os.kill(replica.pid, signal.SIGKILL)
    await asyncio.sleep(0.05)
    pool.reconcile([WISH], Load(), time.monotonic())
    reason = pool.replicas[replica.id].reason or ""
    assert "chat template parsing error" in reason
    assert str(log) in reason


async def test_who_is_served_by_another_keeps_its_replicas_until_those_can_answer(
    pool: Pool,
) -> None:
    own = await ready(pool)
    other = Launch(deployment="host", engine="e", model="m", weights="w", adapters=("a",), bytes=1)
    host = Desired(deployment="host", launches=(other,))
    follows = Desired(deployment="d", launches=(), follows="host")
    pool.reconcile([follows, host], Load(), time.monotonic())
    assert pool.replicas[own.id].state == "ready"  # its host has only just been thought of
    for _ in range(500):
        pool.reconcile([follows, host], Load(), time.monotonic())
        states = {r.launch.deployment: r.state for r in pool.replicas.values()}
        if states.get("host") != "ready":
            assert states["d"] == "ready"
        elif "d" not in states:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(pool.replicas)


async def test_adapters_are_read_before_a_load_and_handed_to_the_engine(tmp_path: Path) -> None:
    read: list[str] = []
    engine_got.clear()
    pool = make(tmp_path)
    pool._weights = lambda digest: Path("/", digest) if not read.append(digest) else Path()
    launch = msgspec.structs.replace(LAUNCH, adapters=("one", "two"))
    pool.reconcile([Desired(deployment="d", launches=(launch,))], Load(), time.monotonic())
    for _ in range(100):
        await asyncio.sleep(0.02)
        if engine_got:
            break
    assert (read, engine_got) == (["w", "one", "two"], [Path("/one"), Path("/two")])
    engine_got.clear()
    pool.stop_all()
    await pool._client.close()
