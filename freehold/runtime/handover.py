"""Hand a listening socket from a running process to a new one, over a Unix socket.

Gateways share one listening socket. When control was killed and has come back it does not have
that socket any more; the gateways that went on serving do, and give it to control on request.
"""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PATIENCE = 2.0
LONGEST = 90
"""Bytes of a path that every system takes as the address of a socket."""


def offer(listener: socket.socket, path: Path) -> None:
    """Give ``listener`` to whoever connects to ``path``, for the life of the process."""
    path.unlink(missing_ok=True)
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _address(path) as address:
        door.bind(address)
    path.chmod(0o600)
    door.listen(4)

    def serve() -> None:
        while True:
            with suppress(OSError):
                guest, _ = door.accept()
                with guest:
                    socket.send_fds(guest, [b"."], [listener.fileno()])

    threading.Thread(target=serve, name="handover", daemon=True).start()


def receive(path: Path) -> socket.socket | None:
    """Return the listening socket that the process behind ``path`` offers, or None."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as guest:
        guest.settimeout(PATIENCE)
        try:
            with _address(path) as address:
                guest.connect(address)
            _, descriptors, _, _ = socket.recv_fds(guest, 1, 1)
        except OSError:
            return None
    if not descriptors:
        return None
    listener = socket.socket(fileno=descriptors[0])
    listener.set_inheritable(True)
    return listener


@contextmanager
def _address(path: Path) -> Iterator[str]:
    """Yield an address for a socket file; a long path is reached through its open directory."""
    if len(os.fsencode(path)) <= LONGEST:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
