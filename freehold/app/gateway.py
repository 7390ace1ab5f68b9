"""A gateway process: ``python -m freehold.app.gateway HOME NAME DESCRIPTOR [TLS]``.

Started by control with the listening socket as an inherited descriptor; ``TLS`` is the folder with
the certificate in force. It outlives control. SIGUSR1 has it drain, SIGTERM end.
"""

import asyncio
import gc
import os
import signal
import socket
import sys
import time
import zlib
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import msgspec
import uvloop

from freehold.control.certificate import CERTIFICATE, CLIENT_CA, KEY
from freehold.control.gateways import most_gateways, read_settings_in_force
from freehold.gateway.alarm import Alarms
from freehold.gateway.allowance import Allowances
from freehold.gateway.cache import Cache
from freehold.gateway.clients import open_client
from freehold.gateway.dispatch import Dispatch
from freehold.gateway.door import Door
from freehold.gateway.follow import Follower
from freehold.gateway.links import Links
from freehold.gateway.log import Log, configure_logging
from freehold.gateway.parts import Parts
from freehold.gateway.recorded import Books
from freehold.gateway.routes import application
from freehold.gateway.server import Ending, Tls, serve
from freehold.gateway.telemetry import Telemetry
from freehold.gateway.upstream import Upstream
from freehold.identity.keys import Callers, read_pepper
from freehold.policy.admission import Admission
from freehold.policy.budgets import Budgets
from freehold.policy.cells import Cells, slot_of
from freehold.record.journal import Journal
from freehold.record.meter import Meter
from freehold.record.otlp import open_collector
from freehold.runtime import handover
from freehold.runtime.circuits import Circuits
from freehold.runtime.circuits import open_board as open_circuits
from freehold.runtime.leases import Leases, open_board
from freehold.runtime.standing import Standing
from freehold.secret import resolve_secret
from freehold.settings import Server, Settings
from freehold.store.marks import Marks
from freehold.store.responses import Shelf

SHOW_EVERY = 1.0


async def run(
    home: Path, name: str, listener: socket.socket, tls: Path | None, settings: Settings
) -> None:
    """Serve until SIGTERM, or until drained, then let running requests end."""
    async with AsyncExitStack() as stack:
        parts = await _assemble(home, name, settings, stack)
        offer = partial(handover.offer, listener, home / "run" / "gateways" / f"{name}.sock")
        for task in (parts.follower.follow(), _show(parts)):
            stack.callback(asyncio.create_task(task).cancel)
        files = _tls(tls, settings.server) if tls else None
        await serve(application(parts), listener, parts.door, _ending(), files, started=offer)


async def _assemble(home: Path, name: str, settings: Settings, stack: AsyncExitStack) -> Parts:
    """Put the parts together; ``stack`` closes them, those that use others first."""
    running, slot, pepper = home / "run", slot_of(name), read_pepper(home / "pepper")
    telemetry = Telemetry(
        name,
        Meter(running / "metrics"),
        open_collector(settings.telemetry, name),
        settings.telemetry.sample_ratio,
    )
    stack.callback(telemetry.close)
    client = open_client(settings.runtime)
    stack.push_async_callback(client.close)
    alarms = Alarms(asyncio.get_running_loop())
    links = Links()
    upstream = Upstream(links, alarms)
    stack.callback(upstream.close)
    circuits = Circuits(open_circuits(running), time.time)
    stack.callback(circuits.close)
    marks, board = Marks(running / "prompts.marks"), open_board(running, slot)
    stack.callback(marks.close)
    if board is not None:
        stack.callback(board.close)
    leases, door = Leases(time.monotonic, board), Door(settings.server, alarms)

    def standing() -> Standing:
        return msgspec.structs.replace(
            door.standing(), reservations=budgets.held + admission.inside, links=links.in_use()
        )

    follower = Follower(name, running / "snapshot.json", client, leases, time.time, standing)
    cells = Cells(running / "quotas", slot, most_gateways(settings.server))
    budgets = Budgets(cells, home / "audit", time.time, settings.quotas.unstated_answer)
    budgets.plans.use(follower.snapshot.limits)
    await budgets.begin()
    journal = Journal(home / "audit", name, settings.audit.segment_bytes, budgets.settle)
    stack.callback(journal.close)
    admission = Admission(cells, settings.quotas, budgets.recover)
    stack.push_async_callback(admission.close)
    return Parts(
        home=home,
        settings=settings,
        callers=Callers(pepper),
        follower=follower,
        cache=Cache(pepper, settings.cache.bytes, time.monotonic),
        dispatch=Dispatch(leases, marks, seed=zlib.crc32(pepper)),
        client=client,
        upstream=upstream,
        alarms=alarms,
        circuits=circuits,
        books=Books(
            journal=journal,
            log=Log(name, settings.log),
            clock=time.time,
            telemetry=telemetry,
        ),
        allowances=Allowances(budgets, admission, follower),
        shelf=Shelf(home / "responses", settings.responses, time.time),
        door=door,
    )


async def _show(parts: Parts) -> None:
    """Keep the numbers about this process itself true."""
    while True:
        parts.books.telemetry.show(parts.follower.snapshot.revision)
        await asyncio.sleep(SHOW_EVERY)


def _ending() -> Ending:
    ending = Ending(asyncio.Event(), asyncio.Event())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.stop.set)
    loop.add_signal_handler(signal.SIGUSR1, ending.drain.set)
    return ending


def _tls(folder: Path, settings: Server) -> Tls:
    return Tls(
        certificate=folder / CERTIFICATE,
        key=folder / KEY,
        password=resolve_secret(settings.tls_key_password) if settings.tls_key_password else None,
        client_ca=folder / CLIENT_CA if settings.client_ca else None,
        required=settings.client_certificate == "required",
    )


def main() -> None:
    """Read what control told us and run."""
    os.umask(0o077)
    # What is here now stays; requests make little that only the collector could find.
    gc.freeze()
    gc.set_threshold(5_000, 10, 10)
    home, name, descriptor, *tls = sys.argv[1:]
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    settings = read_settings_in_force(Path(home))
    configure_logging(settings.log)
    listener = socket.socket(fileno=int(descriptor))
    uvloop.run(run(Path(home), name, listener, Path(tls[0]) if tls else None, settings))


if __name__ == "__main__":
    main()
