"""The control process: its parts, its life from start to stop."""

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Protocol

from freehold.app.stopping import Stopping
from freehold.control import compressions, fallback, outcomes, quarantines
from freehold.control.beat import keep
from freehold.control.certificate import check_exposure
from freehold.control.control import BEAT, Control, new_secret
from freehold.control.deployments import Deployments
from freehold.control.engines import end_trials
from freehold.control.gateways import Gateways, are_running, most_gateways
from freehold.control.home import Home
from freehold.control.jobs import Jobs
from freehold.control.keys import Keys, has_keys
from freehold.control.limits import Limits
from freehold.control.publish import Publisher
from freehold.control.pushes import Pushes
from freehold.control.repositories import Repositories
from freehold.control.spending import Spending
from freehold.control.stock import look_after
from freehold.control.uploads import Uploads
from freehold.errors import FreeholdError
from freehold.gateway import cors
from freehold.gateway.admin.application import application
from freehold.gateway.admin.report import report
from freehold.gateway.alarm import Alarms
from freehold.gateway.clients import open_client
from freehold.gateway.door import Door
from freehold.gateway.log import Log, configure_logging
from freehold.gateway.peers import networks
from freehold.gateway.recorded import Books
from freehold.gateway.server import Ending, listen, serve
from freehold.gateway.telemetry import Telemetry
from freehold.identity.keys import read_pepper
from freehold.models.conversion import clear
from freehold.models.papers import Papers
from freehold.models.pipeline import Workshop
from freehold.models.registry import Registry
from freehold.models.room import Room
from freehold.models.signing.trust import Trust
from freehold.models.upkeep import Upkeep
from freehold.plugins import open_kind
from freehold.record.journal import Journal
from freehold.record.meter import Meter, forget_the_dead
from freehold.record.otlp import Collector, open_collector
from freehold.runtime.builds import Builds
from freehold.runtime.circuits import Circuits, open_board
from freehold.runtime.pool import Pool
from freehold.settings import Server, Settings, environment
from freehold.store.blobs import Blobs
from freehold.store.database import Database

INTERNAL_IDLE = 600.0
"""Seconds that a gateway's connection to control may do nothing."""


REPORT_AGAIN = 5.0
"""Seconds until reports go on after one has failed."""


class Reception(Protocol):
    """What happens around the start: who starts it decides."""

    async def prepare(self, control: Control) -> None:
        """Run once gateways serve, before the house calls itself ready."""
        ...

    async def greet(self, control: Control) -> None:
        """Run when that is done; what was deployed may still be loading."""
        ...

    def stopping(self, control: Control) -> None:
        """Hear that a clean stop begins; requests may still run."""
        ...


@asynccontextmanager
async def opened(home: Home, settings: Settings) -> AsyncIterator[Control]:
    """Open a home for this process alone; processes that run there are left as they are."""
    lock = home.lock()
    try:
        end_trials(home)
        control = _assemble(home, settings)
        quarantines.watch(control)
        outcomes.watch(control)
        try:
            yield control
        finally:
            await control.close()
            end_trials(home)
    finally:
        os.close(lock)


async def run(home: Home, settings: Settings, reception: Reception) -> None:
    """Serve until SIGINT or SIGTERM, then stop cleanly: gateways first, engines last."""
    configure_logging(settings.log)
    collector = open_collector(settings.telemetry, "control")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    _check(settings.server)
    async with opened(home, settings) as control:
        loop.add_signal_handler(signal.SIGHUP, _restart_gateways, control)
        stopping = Stopping(stop, control, reception.stopping)
        loop.add_signal_handler(signal.SIGINT, stopping.interrupted)
        loop.add_signal_handler(signal.SIGTERM, stopping.asked)
        telemetry = _telemetry(home, settings, collector)
        try:
            await _serve(control, stop, reception, telemetry)
        finally:
            telemetry.close()


def _telemetry(home: Home, settings: Settings, collector: Collector | None) -> Telemetry:
    directory = home.run / "metrics"
    if not are_running(home.root):
        forget_the_dead(directory)
    return Telemetry("control", Meter(directory), collector, settings.telemetry.sample_ratio)


def _check(server: Server) -> None:
    check_exposure(server)
    networks(server.trusted_proxies)
    cors.check_origins(server.cors_origins)


def _restart_gateways(control: Control) -> None:
    try:
        control.gateways.restart()
    except FreeholdError as error:
        log = logging.getLogger("freehold.control")
        log.warning("gateways stay as they are: %s", error.message)


def _assemble(home: Home, settings: Settings) -> Control:
    home.run.mkdir(exist_ok=True, mode=0o700)
    database = Database(home.database)
    blobs = Blobs(home.blobs)
    blobs.clear_incoming()
    room = Room(settings.registry, database, blobs)
    registry = Registry(database, blobs, settings.licences, admits=room.admits)
    registry.sweep()
    clear(home.scratch)
    papers = Papers(database, registry, Trust(settings.signing))
    uploads = Uploads(home.root / "registry")
    repositories = Repositories(database, registry, papers, blobs, uploads)
    builds = Builds(home.engines)
    deployments = Deployments(database, registry, settings.runtime, builds)
    upkeep = _upkeep(home, settings, database, blobs, deployments, lambda: pool)
    engines = {name: kind() for name, kind in open_kind("engine", settings.plugins).items()}
    client = open_client(settings.runtime)
    pool = Pool(
        engines,
        _permitted(upkeep, papers),
        home.run / "replicas",
        home.logs,
        settings.runtime,
        client,
        environment(),
        time.monotonic,
    )
    return Control(
        home=home,
        settings=settings,
        database=database,
        blobs=blobs,
        registry=registry,
        workshop=_workshop(home, settings, registry, blobs, papers),
        papers=papers,
        repositories=repositories,
        pushes=Pushes(repositories, blobs, settings.registry),
        deployments=deployments,
        keys=Keys(database, read_pepper(home.pepper, fresh=not has_keys(database))),
        limits=Limits(database),
        spending=Spending(
            database, home.audit, home.quotas, most_gateways(settings.server), time.time
        ),
        jobs=Jobs(),
        publisher=Publisher(home.snapshot),
        pool=pool,
        gateways=Gateways(home.root, settings, listen, _check),
        engines=engines,
        compressors={
            name: kind(settings.compress)
            for name, kind in open_kind("compressor", settings.plugins).items()
        },
        journal=Journal(home.audit, "control", settings.audit.segment_bytes),
        client=client,
        clock=time.time,
        circuits=Circuits(open_board(home.run), time.time),
        room=room,
        upkeep=upkeep,
        builds=builds,
        loop=asyncio.get_running_loop(),
    )


def _workshop(
    home: Home, settings: Settings, registry: Registry, blobs: Blobs, papers: Papers
) -> Workshop:
    kinds = open_kind("source", settings.plugins)
    return Workshop(
        sources={name: kind(settings.sources) for name, kind in kinds.items()},
        blobs=blobs,
        registry=registry,
        scratch=home.scratch,
        scan=settings.scan,
        licences=settings.licences,
        papers=papers,
    )


def _permitted(upkeep: Upkeep, papers: Papers) -> Callable[[str], Path]:
    """Return what the pool calls before a load: bytes are verified, and signed where required."""

    def check(digest: str) -> Path:
        papers.check_loading(digest)
        return upkeep.whole(digest)

    return check


def _upkeep(
    home: Home,
    settings: Settings,
    database: Database,
    blobs: Blobs,
    deployments: Deployments,
    pool: Callable[[], Pool],
) -> Upkeep:
    loop = asyncio.get_running_loop()

    def in_use() -> set[str]:
        launches = [replica.launch for replica in list(pool().replicas.values())]
        found = {each for launch in launches for each in (launch.weights, launch.draft) if each}
        return deployments.wanted() | found

    def changed() -> None:
        loop.call_soon_threadsafe(deployments.forget_plans)

    return Upkeep(settings.registry, database, blobs, home.scratch, in_use, time.time, changed)


async def _serve(
    control: Control, stop: asyncio.Event, reception: Reception, telemetry: Telemetry
) -> None:
    control.ensure_admin()
    control.grants = control.keys.grants()
    control.in_force = tuple(control.limits.all())
    control.spending.start(control.in_force, control.gateways.kill_all)
    control.pool.adopt(time.monotonic())
    listener = listen("127.0.0.1", 0)
    control.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    control.secret = new_secret()
    control.publish()
    control.gateways.start()
    closing = asyncio.Event()
    server = asyncio.create_task(_administer(control, telemetry, listener, closing))
    control.public_url = _public_url(control)
    control.home.announce(control.public_url, control.url)
    control.serving = True
    compressions.resume(control)
    beat = asyncio.create_task(control.run(stop))
    care = asyncio.create_task(look_after(control, stop))
    steps = asyncio.create_task(_receive(reception, control))
    report_on = partial(report, control, telemetry)
    shown = asyncio.create_task(keep("reporting", report_on, REPORT_AGAIN, stop))
    look_on = partial(fallback.watch, control)
    builds = asyncio.create_task(keep("watching builds", look_on, BEAT, stop))
    told = False
    try:
        await asyncio.wait((beat, server, steps), return_when=asyncio.FIRST_COMPLETED)
        if steps.done() and not beat.done():
            told = steps.exception() is not None
            steps.result()
            await asyncio.wait((beat, server), return_when=asyncio.FIRST_COMPLETED)
    finally:
        told = told or stop.is_set()
        stop.set()
        steps.cancel()
        shown.cancel()
        control.home.retract()
        if told:
            await asyncio.to_thread(control.gateways.stop)
            control.pool.stop_all()
        else:
            # We failed, they did not: they go on answering, and the next start finds them.
            control.pool.leave_all()
        closing.set()
        await asyncio.wait((beat, server, steps, shown, care, builds))
        with suppress(FreeholdError, OSError):
            await control.take_in_records()
    for task in (beat, server):
        task.result()
    with suppress(asyncio.CancelledError):
        steps.result()


async def _administer(
    control: Control, telemetry: Telemetry, listener: socket.socket, closing: asyncio.Event
) -> None:
    """Answer gateways until told to close."""
    books = Books(
        journal=control.journal,
        log=Log("control", control.settings.log),
        clock=control.clock,
        telemetry=telemetry,
    )
    own = Server(
        idle_timeout=INTERNAL_IDLE,
        body_limit=control.settings.server.body_limit,
        connections_per_peer=0,
    )
    door = Door(own, Alarms(asyncio.get_running_loop()))
    served = application(control, read_pepper(control.home.pepper), books, door)
    await serve(served, listener, door, Ending(closing, asyncio.Event()))


async def _receive(reception: Reception, control: Control) -> None:
    try:
        await reception.prepare(control)
    finally:
        control.starting = False
    await reception.greet(control)


def _public_url(control: Control) -> str:
    host = control.settings.server.host
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - read, not bound
    scheme = "https" if control.settings.server.tls_certificate else "http"
    return f"{scheme}://{f'[{shown}]' if ':' in shown else shown}:{control.gateways.port}"
