"""The door: what holds for every request before anybody asks what it is for.

Keeps account of the requests that are under way, so that they can be seen, and let go when their
connection ends or the process does.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from freehold.errors import FreeholdError, Invalid, TooLarge, Unavailable, WrongMethod
from freehold.gateway import cors
from freehold.gateway.alarm import Alarms
from freehold.gateway.cors import Headers
from freehold.gateway.crowd import Crowd
from freehold.gateway.ids import Ids
from freehold.gateway.peers import client_of, networks
from freehold.runtime.standing import Standing
from freehold.settings import Server

COUNTED_AGAIN = 0.05
"""Seconds until all connections are counted again when that has made no room for a newcomer."""

BYTES_A_SECOND = 32 * 1024
"""The slowest a body may come once ``body_timeout`` is over."""

_ALWAYS: Headers = [("server", "freehold"), ("x-content-type-options", "nosniff")]
_CLOSE: Headers = [("connection", "close")]


class Guest(Protocol):
    """A request under way, as far as the door knows it."""

    peer: str
    is_multiplexed: bool

    def abandon(self) -> None:
        """Act as if its client had hung up."""
        ...


class Request(Protocol):
    """What the door looks at of a request."""

    peer: str

    @property
    def http_version(self) -> str:
        """``1``, ``1.1`` or ``2``."""
        ...

    @property
    def length_of_url(self) -> int:
        """Bytes of path and query."""
        ...

    def header(self, name: str) -> str | None:
        """Return a header."""
        ...

    def headers(self, name: str) -> list[str]:
        """Return all headers of a name."""
        ...


class Door:
    """One a process. ``draining`` and ``closing`` are set once and stay.

    ``recount`` brings the connections of ``crowd`` up to date; ``unwelcome`` are those that were
    one too many, and why.
    """

    def __init__(self, settings: Server, alarms: Alarms) -> None:
        self.settings = settings
        self.alarms = alarms
        self.ids = Ids()
        self.draining = False
        self.closing = False
        self.connections = 0
        self.last: dict[str, float] = {}
        self.recount: Callable[[], object] = lambda: None
        self.unwelcome: dict[str, FreeholdError] = {}
        self._inside: set[Guest] = set()
        self._trusted = networks(settings.trusted_proxies)
        self.crowd = Crowd(settings.connections, settings.connections_per_peer, self._trusted)
        self._recounts_from = 0.0
        cors.check_origins(settings.cors_origins)

    def standing(self) -> Standing:
        """Return what goes on now; the number of connections is a moment old."""
        return Standing(
            connections=self.connections,
            requests=self.requests,
            tasks=len(asyncio.all_tasks()),
            draining=self.draining,
        )

    @property
    def requests(self) -> int:
        """How many requests are under way."""
        return len(self._inside)

    def busy(self) -> set[str]:
        """Return the connections that have a request under way."""
        return {guest.peer for guest in self._inside}

    def enter(self, guest: Guest) -> None:
        """Count a request in."""
        self._inside.add(guest)
        if guest.peer not in self.last:
            self._meet(guest.peer)

    def leave(self, guest: Guest) -> None:
        """Count it out."""
        self._inside.discard(guest)
        self.last[guest.peer] = time.monotonic()

    def _meet(self, peer: str) -> None:
        """Look at a connection that has not asked for anything before: is it one too many?"""
        now = self.last[peer] = time.monotonic()
        self.crowd.arrive(peer)
        if self.crowd.refusal(peer) is None:
            return
        if now > self._recounts_from:
            self.recount()
        if (refusal := self.crowd.refusal(peer)) is not None:
            self._recounts_from = now + COUNTED_AGAIN  # there was nothing to make room with
            self.unwelcome[peer] = refusal

    def close(self) -> None:
        """Let go of every request that is left."""
        self.closing = True
        for guest in list(self._inside):
            guest.abandon()

    def refusal(self, request: Request, guest: Guest) -> FreeholdError | None:
        """Return why a request goes no further, whatever it is for."""
        if self.unwelcome and guest.peer in self.unwelcome:
            return self.unwelcome[guest.peer]
        if request.length_of_url > self.settings.url_limit:
            return TooLarge(
                "invalid.url_too_long",
                f"the URL is over {self.settings.url_limit} bytes: send less, or raise "
                "server.url_limit",
            )
        if guest.is_multiplexed:
            if sum(each.peer == guest.peer for each in self._inside) > self.settings.streams:
                text = f"over {self.settings.streams} requests at a time on one connection"
                return Unavailable("unavailable.streams", text, retry_after=1)
            return None
        if request.http_version == "1.1" and len(request.headers("host")) != 1:
            return Invalid("invalid.host", "a request has exactly one Host header")
        if request.header("transfer-encoding") not in (None, "chunked"):
            return Invalid(
                "invalid.transfer_encoding", "a body comes plain or chunked, nothing else"
            )
        return None

    def client(self, peer: str, request: Request) -> str:
        """Return the address of the client: the peer's, or what a trusted proxy says."""
        if not self._trusted:
            return peer
        header = self.settings.proxy_header
        return client_of(peer, header, request.headers(header), self._trusted)

    def answer_headers(self, request: Request) -> Headers:
        """Return what every answer carries."""
        found = _ALWAYS
        if self.settings.cors_origins:
            origin = request.header("origin")
            found = found + cors.answer_headers(origin, self.settings.cors_origins)
        ends = self.draining or (self.unwelcome and request.peer in self.unwelcome)
        if ends and request.http_version != "2":
            found = found + _CLOSE
        return found

    def preflight(self, request: Request) -> Headers:
        """Return the headers of the answer to ``OPTIONS``, with which browsers ask first.

        Raises ``Forbidden`` for an origin that is not allowed.
        """
        if request.header("access-control-request-method") is None:
            raise WrongMethod("invalid.method", "OPTIONS is for browsers that ask first")
        return cors.preflight(request.header("origin"), self.settings.cors_origins)

    def body_time(self, length: int) -> float:
        """Return the seconds that a body of so many bytes may take."""
        return self.settings.body_timeout + length / BYTES_A_SECOND
