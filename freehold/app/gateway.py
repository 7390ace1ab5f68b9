"""A gateway process: ``python -m freehold.app.gateway HOME NAME DESCRIPTOR``.

Started by control with the listening socket as an inherited descriptor. It outlives control.
"""

import asyncio
import signal
import socket
import sys
import time
from pathlib import Path

import uvloop

from freehold.gateway.follow import Follower
from freehold.gateway.log import Log, configure_logging
from freehold.gateway.parts import Parts
from freehold.gateway.recorded import Books
from freehold.gateway.routes import application
from freehold.gateway.server import serve
from freehold.gateway.upstream import Upstream, open_client
from freehold.identity.keys import read_pepper
from freehold.record.journal import Journal
from freehold.runtime import handover
from freehold.runtime.leases import Leases
from freehold.settings import read_settings


async def run(home: Path, name: str, listener: socket.socket) -> None:
    """Serve until SIGTERM, then let running requests end."""
    settings = read_settings(home)
    handover.offer(listener, home / "run" / "gateways" / f"{name}.sock")
    client = open_client(settings.runtime)
    leases = Leases(time.time)
    journal = Journal(home / "audit", name, settings.audit.segment_bytes)
    parts = Parts(
        settings=settings,
        pepper=read_pepper(home / "pepper"),
        follower=Follower(name, home / "run" / "snapshot.json", client, leases, time.time),
        leases=leases,
        client=client,
        upstream=Upstream(client),
        books=Books(journal=journal, log=Log(name), clock=time.time),
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    following = asyncio.create_task(parts.follower.follow())
    try:
        await serve(application(parts), listener, stop, settings.server.shutdown_grace)
    finally:
        following.cancel()
        journal.close()
        await client.close()


def main() -> None:
    """Read what control told us and run."""
    home, name, descriptor = sys.argv[1:4]
    configure_logging()
    uvloop.run(run(Path(home), name, socket.socket(fileno=int(descriptor))))


if __name__ == "__main__":
    main()
