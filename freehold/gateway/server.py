"""The HTTP server: granian on a socket that we opened, inside our own event loop."""

import asyncio
import errno
import os
import resource
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from granian import _granian
from granian.constants import HTTPModes, Interfaces, SSLProtocols
from granian.http import HTTP1Settings, HTTP2Settings
from granian.server.embed import Server as Granian

from freehold.errors import Unavailable
from freehold.gateway.connections import Connections, stop_accepting
from freehold.gateway.door import Door
from freehold.settings import Server

BACKLOG = 2048
SETTLE = 0.05
"""Seconds in which a server that cannot start says so."""
LAST_WORDS = 1.0
"""Seconds for the records of requests that are let go at the end."""
DRAINING_BEAT = 0.05
CROWDED_BEAT = 0.5
"""Seconds between two looks at the connections when more than half are taken."""
FULL_BEAT = 0.1
"""The same while there were too many: the next ones wait to be accepted."""
DESCRIPTORS = 1024
"""What a gateway opens beside its connections and those to engines."""
PROBES = 3
Application = Callable[[Any, Any], Awaitable[None]]


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """The files that a server proves itself with, and whose client certificates it takes."""

    certificate: Path
    key: Path
    password: str | None = None
    client_ca: Path | None = None
    required: bool = False


class Ending(msgspec.Struct, frozen=True):
    """How a server is told to end: at once, or once its connections have gone elsewhere."""

    stop: asyncio.Event
    drain: asyncio.Event


class _Server(Granian):
    """Granian listening on a socket that is open already, shared by all gateways."""

    def __init__(
        self, application: Application, listener: socket.socket, settings: Server, tls: Tls | None
    ) -> None:
        # Its own number for the same socket: it closes what it was given when it stops.
        self.descriptor = os.dup(listener.fileno())
        super().__init__(
            application,
            interface=Interfaces.RSGI,
            http=HTTPModes.auto,
            websockets=False,
            log_enabled=False,
            backlog=BACKLOG,
            backpressure=settings.connections + spare(settings.connections),
            http1_settings=HTTP1Settings(
                header_read_timeout=int(settings.idle_timeout * 1000),
                max_buffer_size=settings.head_limit,
            ),
            http2_settings=HTTP2Settings(
                max_concurrent_streams=settings.streams,
                max_headers_size=settings.head_limit,
            ),
            ssl_cert=tls.certificate if tls else None,
            ssl_key=tls.key if tls else None,
            ssl_key_password=tls.password if tls else None,
            ssl_protocol_min=SSLProtocols.tls12,
            ssl_ca=tls.client_ca if tls else None,
            ssl_client_verify=tls.required if tls else False,
        )

    def _init_shared_socket(self) -> None:
        holder: Any = _granian.SocketHolder
        self._shd: Any = holder(self.descriptor, False, BACKLOG)
        self._sfd: Any = self.descriptor


def spare(connections: int) -> int:
    """Return how many connections more than the door takes are accepted, to be told so.

    The server itself, once it holds what it may, leaves further ones waiting without a word.
    """
    return max(16, connections // 8)


def allow_descriptors(connections: int) -> None:
    """Have the kernel allow as many open sockets as so many connections, and engines, need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * (connections + spare(connections)) + DESCRIPTORS
    if soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket; the error says what to do when it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            text = f"port {port} on {host} is in use: stop what listens there, or use --port"
            raise Unavailable("unavailable.port", text) from error
        raise Unavailable(
            "unavailable.port", f"cannot listen on {host} port {port}: {error}"
        ) from error
    listener.set_inheritable(True)
    return listener


def bound_sending(listener: socket.socket, seconds: float) -> None:
    """Have the kernel end connections whose other end takes nothing, or is no more.

    What is accepted later inherits these options.
    """
    whole = max(1, round(seconds))
    options = {
        "SO_KEEPALIVE": (socket.SOL_SOCKET, 1),
        "TCP_KEEPIDLE": (socket.IPPROTO_TCP, whole),
        "TCP_KEEPINTVL": (socket.IPPROTO_TCP, max(1, whole // PROBES)),
        "TCP_KEEPCNT": (socket.IPPROTO_TCP, PROBES),
        "TCP_USER_TIMEOUT": (socket.IPPROTO_TCP, whole * 1000),
    }
    for name, (level, value) in options.items():
        if (number := getattr(socket, name, None)) is not None:
            listener.setsockopt(level, number, value)


async def serve(
    application: Application,
    listener: socket.socket,
    door: Door,
    ending: Ending,
    tls: Tls | None = None,
    started: Callable[[], None] = lambda: None,
) -> None:
    """Serve until told to end, then let running requests end within ``shutdown_grace`` seconds.

    ``started`` is called once connections are accepted. What runs after the grace is let go.
    """
    bound_sending(listener, door.settings.send_timeout)
    allow_descriptors(door.settings.connections)
    connections = Connections(listener, door)
    door.recount = connections.sweep
    server = _Server(application, listener, door.settings, tls)
    task = asyncio.ensure_future(server.serve())
    waiting = [asyncio.ensure_future(event.wait()) for event in (ending.stop, ending.drain)]
    sweeping = asyncio.ensure_future(_sweep(connections, door))
    try:
        await asyncio.wait((task,), timeout=SETTLE)
        if not task.done():
            started()
        await asyncio.wait((task, *waiting), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            loop = asyncio.get_running_loop()
            deadline = loop.time() + door.settings.shutdown_grace
            if not ending.stop.is_set():
                await _lead_away(connections, door, server.descriptor, ending.stop)
            server.stop()  # type: ignore[no-untyped-call]
            await asyncio.wait((task,), timeout=max(0.0, deadline - loop.time()))
            door.close()
            await asyncio.wait((task,), timeout=LAST_WORDS)
    finally:
        for each in (*waiting, sweeping):
            each.cancel()
    if task.done():
        task.result()
    task.cancel()


async def _lead_away(
    connections: Connections, door: Door, descriptor: int, stop: asyncio.Event
) -> None:
    """Accept nothing more, and have every client go elsewhere with its next request.

    A connection closed while its client sends a request would fail that request: so clients are
    told first, with the answers they get, and half of the grace is theirs to notice.
    """
    stop_accepting(descriptor)
    door.draining = True
    loop = asyncio.get_running_loop()
    deadline = loop.time() + door.settings.shutdown_grace / 2
    while connections.sweep() and not stop.is_set() and loop.time() < deadline:
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), DRAINING_BEAT)


async def _sweep(connections: Connections, door: Door) -> None:
    beat = max(0.1, min(2.0, door.settings.idle_timeout / 4))
    while True:
        pace = FULL_BEAT if connections.had_surplus else beat
        if 2 * door.connections > door.settings.connections:
            pace = min(pace, CROWDED_BEAT)
        await asyncio.sleep(pace)
        connections.sweep()
