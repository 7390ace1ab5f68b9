"""The HTTP server: granian on a socket that we opened, inside our own event loop."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from granian import _granian
from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server as Granian

from freehold.errors import Unavailable

BACKLOG = 2048
Application = Callable[[Any, Any], Awaitable[None]]


class _Server(Granian):
    """Granian listening on a socket that is open already, shared by all gateways."""

    def __init__(self, application: Application, listener: socket.socket) -> None:
        self._listener = listener
        super().__init__(
            application,
            interface=Interfaces.RSGI,
            http=HTTPModes.auto,
            websockets=False,
            log_enabled=False,
            backlog=BACKLOG,
        )

    def _init_shared_socket(self) -> None:
        holder: Any = _granian.SocketHolder
        self._shd: Any = holder(self._listener.fileno(), False, BACKLOG)
        self._sfd: Any = self._listener.fileno()


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


async def serve(
    application: Application, listener: socket.socket, stop: asyncio.Event, grace: float = 5.0
) -> None:
    """Serve until ``stop`` is set, then let running requests end within ``grace`` seconds."""
    server = _Server(application, listener)
    task = asyncio.ensure_future(server.serve())
    waiter = asyncio.ensure_future(stop.wait())
    await asyncio.wait((task, waiter), return_when=asyncio.FIRST_COMPLETED)
    waiter.cancel()
    if not task.done():
        server.stop()  # type: ignore[no-untyped-call]
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(task, grace)
        return
    task.result()
