"""The connections that this process has accepted: counted, and closed when they do nothing.

The server bounds the head of a request once a connection has begun to speak HTTP/1. One that says
nothing at all, stops in its first bytes, or idles on HTTP/2 is ours to close: its descriptor is
found among those of this process and shut down, which the server takes for a client that left.
"""

import fcntl
import logging
import os
import select
import socket
import stat
import struct
import termios
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from freehold.gateway.crowd import place_of
from freehold.gateway.door import Door

DESCRIPTORS = Path("/dev/fd")
POLLERS = Path("/proc/self/fdinfo")
SAID_AGAIN = 60.0
_log = logging.getLogger("freehold.door")


class _Seen(msgspec.Struct, frozen=True):
    peer: str | None
    since: float


class Connections:
    """What is connected to the listening socket of this process.

    ``had_surplus`` says that there were too many when it was looked at last.
    """

    def __init__(self, listener: socket.socket, door: Door) -> None:
        self._port = listener.getsockname()[1]
        self._door = door
        self._seen: dict[int, _Seen] = {}
        self._said = -SAID_AGAIN
        self.had_surplus = False

    def sweep(self) -> int:
        """Close what has done nothing for too long; return how many connections there are.

        Of those that are more than the door takes, idle ones are closed at once.
        """
        now, busy = time.monotonic(), self._door.busy()
        present: dict[int, _Seen] = {}
        numbers: dict[str, int] = {}
        since: dict[str, float] = {}
        for number, inode in _sockets():
            found = self._seen.get(inode) or _Seen(self._peer(number), now)
            present[inode] = found
            peer = found.peer
            if peer is None:
                continue
            numbers[peer] = number
            since[peer] = self._door.last.get(peer, found.since)
            last = max(found.since, since[peer])
            if peer not in busy and now - last > self._door.settings.idle_timeout:
                self._close(number, peer)
        self._seen = present
        self._end_surplus(numbers, since, busy)
        for peer in self._door.last.keys() - numbers.keys():
            del self._door.last[peer]
            self._door.unwelcome.pop(peer, None)
        self._door.connections = len(numbers)
        return len(numbers)

    def _end_surplus(
        self, numbers: dict[str, int], since: Mapping[str, float], busy: Collection[str]
    ) -> None:
        """End those that are too many and do nothing, so that others get in."""
        crowd = self._door.crowd
        crowd.census(numbers)
        surplus = crowd.surplus(since, busy)
        self.had_surplus = bool(surplus)
        for peer in surplus:
            self._close(numbers.pop(peer), peer)
        if surplus:
            crowd.census(numbers)
            self._say(len(surplus), place_of(surplus[0]))

    def _say(self, count: int, place: str) -> None:
        now = time.monotonic()
        if now - self._said > SAID_AGAIN:
            self._said = now
            _log.warning(
                "closed %s idle connections, more than server.connections or connections_per_peer "
                "allow; the first was of %s",
                count,
                place,
            )

    def _peer(self, number: int) -> str | None:
        """Return who is at the other end when the connection came in through our door."""
        with suppress(OSError), socket.socket(fileno=os.dup(number)) as copy:
            internet = copy.family in (socket.AF_INET, socket.AF_INET6)
            if internet and copy.getsockname()[1] == self._port:
                return _text(copy.getpeername())
        return None

    def _close(self, number: int, peer: str) -> None:
        with suppress(OSError), socket.socket(fileno=os.dup(number)) as copy:
            # The number may be another's by now; what still has to go out may take its time.
            if _text(copy.getpeername()) == peer and not _unsent(copy):
                copy.shutdown(socket.SHUT_RDWR)


def stop_accepting(descriptor: int) -> bool:
    """Take a listening socket from the pollers of this process: others go on accepting from it.

    The server knows only one way to stop accepting, which closes what it has accepted too. False
    where the pollers cannot be found.
    """
    wanted = f"tfd: {descriptor:8d} "
    found = False
    with suppress(OSError):
        for path in POLLERS.iterdir():
            with suppress(OSError):
                if wanted in path.read_text():
                    with select.epoll.fromfd(os.dup(int(path.name))) as poller:
                        poller.unregister(descriptor)
                        found = True
    return found


def _sockets() -> list[tuple[int, int]]:
    """Return (descriptor, inode) of the open sockets of this process."""
    found = []
    for name in os.listdir(DESCRIPTORS):  # noqa: PTH208 - names, not paths, a thousand at a time
        with suppress(OSError, ValueError):
            status = os.fstat(int(name))
            if stat.S_ISSOCK(status.st_mode):
                found.append((int(name), status.st_ino))
    return found


def _unsent(connection: socket.socket) -> int:
    with suppress(OSError):
        answer = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, b"\0" * 4)
        return int(struct.unpack("i", answer)[0])
    return 0


def _text(address: tuple[object, ...]) -> str:
    """Return an address as the server writes it."""
    host, port = str(address[0]), address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
