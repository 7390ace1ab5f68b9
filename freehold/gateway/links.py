"""Connections to engines, kept open between requests; TLS identities are given by files.

A file that was replaced makes new connections from the next request on.
"""

import asyncio
import re
import ssl
from collections import deque
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import certifi

from freehold import __version__
from freehold.errors import EngineLost
from freehold.gateway.link import Link
from freehold.gateway.watch import Watch, too_slow
from freehold.store.snapshot import Target, Trust

IDLE = 30.0
"""Seconds after which a connection that nobody uses is closed, when there is an occasion."""
MOST_IDLE = 256
MOST_ROADS = 1024

_PLAIN = re.compile(r"[!-~]+")
_HEAD = (
    b"POST %b HTTP/1.1\r\nhost: %b\r\nuser-agent: freehold/%b\r\naccept: */*\r\n"
    b"accept-encoding: identity\r\ncontent-type: application/json\r\n"
)

Stamp = tuple[int, ...]


class Road:
    """The way to one endpoint: where it is, what every request to it says, what is open."""

    def __init__(self, target: Target, stamp: Stamp, tls: ssl.SSLContext | None) -> None:
        parts = urlsplit(target.url)
        if parts.hostname is None or not _PLAIN.fullmatch(target.url):
            raise ValueError("the URL names no host")
        self.host = parts.hostname
        self.port = parts.port or (443 if tls else 80)
        self.stamp = stamp
        self.tls = tls
        self.idle: deque[Link] = deque()
        self.gone = False
        self._path = parts.path.rstrip("/")
        self._where = parts.netloc.rpartition("@")[2].encode()
        self._key = b"authorization: Bearer %b\r\n" % _secret(target.key) if target.key else b""
        self._heads: dict[str, bytes] = {}

    def head(self, path: str) -> bytes:
        """Return the head of a request, but for its length and its place in a trace."""
        found = self._heads.get(path)
        if found is None:
            whole = f"{self._path}{path}".encode()
            found = _HEAD % (whole, self._where, __version__.encode()) + self._key
            self._heads[path] = found
        return found


class Links:
    """Finds or opens connections. Used from one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._roads: dict[Target, Road] = {}
        self._opened: set[Link] = set()

    def in_use(self) -> int:
        """Return how many connections are open and not at rest; now and then, for those gone."""
        self._opened = {link for link in self._opened if link.lives}
        resting = sum(link.lives for road in self._roads.values() for link in road.idle)
        return len(self._opened) - resting

    def road(self, target: Target) -> Road:
        """Return the way to a target; ``EngineLost`` when its files or its URL cannot be used."""
        found = self._roads.get(target)
        if found is not None and target.trust is None:
            return found
        try:
            stamp = _stamp(target.trust)
            if found is None or found.stamp != stamp:
                found = self._open(target, stamp)
            return found
        except (OSError, ValueError) as error:
            raise EngineLost(
                "unavailable.upstream_tls",
                f"the certificates or the URL of the endpoint cannot be used: {error}",
                retry_after=5,
            ) from error

    async def take(self, road: Road, watch: Watch, *, fresh: bool = False) -> Link:
        """Return a connection, an open one unless it shall be ``fresh``."""
        while road.idle and not fresh:
            link = road.idle.pop()
            if link.usable:
                link.reused = True
                return link
        limit, left = watch.limits.connect, watch.left
        try:
            async with asyncio.timeout(max(0.0, min(limit, left))):
                _, link = await self._loop.create_connection(
                    lambda: Link(self._loop), road.host, road.port, ssl=road.tls
                )
                self._opened.add(link)
                return link
        except TimeoutError as error:
            # Who has less time than a connection may take says nothing against the endpoint.
            raise (too_slow("connect", limit) if limit <= left else watch.late()) from error
        except (OSError, UnicodeError) as error:  # the second is for names that none can have
            raise EngineLost(
                "unavailable.engine_lost",
                "the engine went away: it is being restarted, try again",
                retry_after=1,
            ) from error

    def give(self, road: Road, link: Link, *, done: bool = False) -> None:
        """Take a connection back: kept when its answer is over, else closed at once.

        Of one that is ``done`` only the end may be missing: it is kept once that has come. None is
        kept after an error: it may have been said before the request came, whose answer would be
        the next one's.
        """
        if done and link.lives and not link.over:
            link.linger(partial(self.give, road, link))
            return
        if road.gone or link.status != 200 or not link.usable or len(road.idle) >= MOST_IDLE:
            link.close()
            return
        link.empty()
        now = link.idle_since = self._loop.time()
        road.idle.append(link)
        _trim(road, now - IDLE)

    def close(self) -> None:
        """Close every connection that nobody uses."""
        for road in self._roads.values():
            _empty(road)

    def _open(self, target: Target, stamp: Stamp) -> Road:
        for gone in [self._roads.pop(known) for known in self._overdue(target)]:
            _empty(gone)
        for other in self._roads.values():  # engines that start anew listen elsewhere
            _trim(other, self._loop.time() - IDLE)
        tls = _tls(target.trust) if target.url.startswith("https://") else None
        road = self._roads[target] = Road(target, stamp, tls)
        return road

    def _overdue(self, target: Target) -> list[Target]:
        """Return whose ways are to be forgotten: the replaced one, all when there are too many."""
        if len(self._roads) >= MOST_ROADS:
            return list(self._roads)
        return [target] if target in self._roads else []


def _trim(road: Road, since: float) -> None:
    """Close what nobody has used since then."""
    while road.idle and (road.idle[0].idle_since < since or not road.idle[0].usable):
        road.idle.popleft().close()


def _empty(road: Road) -> None:
    """Close what is open there; what is in use follows once it is given back."""
    road.gone = True
    while road.idle:
        road.idle.pop().close()


def _secret(key: str) -> bytes:
    if not _PLAIN.fullmatch(key):
        raise ValueError("its key holds characters that no header may")
    return key.encode()


def _tls(trust: Trust | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not context.cert_store_stats()["x509_ca"]:  # a machine without authorities of its own
        context.load_verify_locations(certifi.where())
    if trust is not None and trust.ca:
        context.load_verify_locations(cadata=Path(trust.ca).read_text())
    if trust is not None and trust.certificate and trust.key:
        context.load_cert_chain(trust.certificate, trust.key)
    return context


def _stamp(trust: Trust | None) -> Stamp:
    if trust is None:
        return ()
    return tuple(
        number
        for path in (trust.ca, trust.certificate, trust.key)
        if path
        for status in (Path(path).stat(),)
        for number in (status.st_ino, status.st_size, status.st_mtime_ns)
    )
