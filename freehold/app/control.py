"""The control process: its parts, its life from start to stop."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Protocol

from freehold.control.control import Control, new_secret, verified_weights
from freehold.control.deployments import Deployments
from freehold.control.gateways import Gateways
from freehold.control.home import Home
from freehold.control.jobs import Jobs
from freehold.control.keys import Keys
from freehold.control.publish import Publisher
from freehold.gateway.admin.application import application
from freehold.gateway.log import Log, configure_logging
from freehold.gateway.recorded import Books
from freehold.gateway.server import listen, serve
from freehold.gateway.upstream import open_client
from freehold.identity.keys import read_pepper
from freehold.models.pipeline import Workshop
from freehold.models.registry import Registry
from freehold.plugins import open_kind
from freehold.record.journal import Journal
from freehold.runtime.pool import Pool
from freehold.settings import Settings, environment
from freehold.store.blobs import Blobs
from freehold.store.database import Database


class Reception(Protocol):
    """What happens around the start: who starts it decides."""

    async def prepare(self, control: Control) -> None:
        """Run once gateways serve, before the house calls itself ready."""
        ...

    async def greet(self, control: Control) -> None:
        """Run when that is done; what was deployed may still be loading."""
        ...


@asynccontextmanager
async def opened(home: Home, settings: Settings) -> AsyncIterator[Control]:
    """Open a home for this process alone; processes that run there are left as they are."""
    lock = home.lock()
    try:
        control = _assemble(home, settings)
        try:
            yield control
        finally:
            await control.close()
    finally:
        os.close(lock)


async def run(home: Home, settings: Settings, reception: Reception) -> None:
    """Serve until SIGINT or SIGTERM, then stop cleanly: gateways first, engines last."""
    configure_logging()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with opened(home, settings) as control:
        await _serve(control, stop, reception)


def _assemble(home: Home, settings: Settings) -> Control:
    home.run.mkdir(exist_ok=True, mode=0o700)
    database = Database(home.database)
    blobs = Blobs(home.blobs)
    blobs.clear_incoming()
    registry = Registry(database, blobs)
    engines = {name: kind() for name, kind in open_kind("engine", settings.plugins).items()}
    sources = {
        name: kind(settings.sources) for name, kind in open_kind("source", settings.plugins).items()
    }
    client = open_client(settings.runtime)
    return Control(
        home=home,
        settings=settings,
        database=database,
        blobs=blobs,
        registry=registry,
        workshop=Workshop(sources=sources, blobs=blobs, registry=registry, scratch=home.scratch),
        deployments=Deployments(database, registry, settings.runtime),
        keys=Keys(database, read_pepper(home.pepper)),
        jobs=Jobs(),
        publisher=Publisher(home.snapshot),
        pool=Pool(
            engines,
            verified_weights(blobs),
            home.run / "replicas",
            home.logs,
            settings.runtime,
            client,
            environment(),
            time.time,
        ),
        gateways=Gateways(home.root, settings, listen),
        engines=engines,
        journal=Journal(home.audit, "control", settings.audit.segment_bytes),
        client=client,
        clock=time.time,
    )


async def _serve(control: Control, stop: asyncio.Event, reception: Reception) -> None:
    control.ensure_admin()
    control.grants = control.keys.grants()
    control.pool.adopt(control.clock())
    listener = listen("127.0.0.1", 0)
    control.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    control.secret = new_secret()
    control.publish()
    control.gateways.start()
    books = Books(journal=control.journal, log=Log("control"), clock=control.clock)
    pepper = read_pepper(control.home.pepper)
    closing = asyncio.Event()
    server = asyncio.create_task(serve(application(control, pepper, books), listener, closing))
    control.public_url = _public_url(control)
    control.home.endpoint.write_text(control.public_url + "\n", encoding="ascii")
    control.serving = True
    beat = asyncio.create_task(control.run(stop))
    steps = asyncio.create_task(_receive(reception, control))
    try:
        await asyncio.wait((beat, server, steps), return_when=asyncio.FIRST_COMPLETED)
        if steps.done() and not beat.done():
            steps.result()
            await asyncio.wait((beat, server), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.set()
        steps.cancel()
        control.home.endpoint.unlink(missing_ok=True)
        await asyncio.to_thread(control.gateways.stop)
        control.pool.stop_all()
        closing.set()
        await asyncio.wait((beat, server, steps))
        await control.take_in_records()
    for task in (beat, server):
        task.result()
    with suppress(asyncio.CancelledError):
        steps.result()


async def _receive(reception: Reception, control: Control) -> None:
    try:
        await reception.prepare(control)
    finally:
        control.starting = False
    await reception.greet(control)


def _public_url(control: Control) -> str:
    host = control.settings.server.host
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - read, not bound
    return (
        f"http://[{shown}]:{control.gateways.port}"
        if ":" in shown
        else (f"http://{shown}:{control.gateways.port}")
    )
