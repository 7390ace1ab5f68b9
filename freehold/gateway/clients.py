"""HTTP clients: deadlines that are a client's matter, and TLS identities, get a client each.

An identity is given by files. A file that was replaced makes a new client at the next request; the
old one ends with its last request.
"""

from datetime import timedelta
from pathlib import Path

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import PyreqwestError

from freehold.errors import EngineLost
from freehold.settings import Runtime
from freehold.store.snapshot import Deadlines, Target, Trust

GRACE = 1.0
SILENCE = 300.0
"""Seconds that processes of a home may keep each other waiting."""

Stamp = tuple[int, ...]
Kind = tuple[Trust | None, float, float]
"""Identity, seconds to connect, seconds of silence."""


def open_client(settings: Runtime) -> Client:
    """Return the HTTP client that processes of a home use between themselves."""
    return _builder(settings.connect_timeout, SILENCE).build()


class Clients:
    """Finds the client for a target; keeps connections open."""

    def __init__(self) -> None:
        self._clients: dict[Kind, tuple[Stamp, Client]] = {}

    def of(self, target: Target, limits: Deadlines) -> Client:
        """Return the client for a target; ``EngineLost`` when its files cannot be used."""
        silence = max(limits.headers, limits.first_token, limits.token) + GRACE
        kind = (target.trust, limits.connect, silence)
        found = self._clients.get(kind)
        if found is not None and target.trust is None:
            return found[1]
        try:
            stamp = _stamp(target.trust)
            if found is None or found[0] != stamp:
                found = self._clients[kind] = (stamp, _open(*kind))
            return found[1]
        except (OSError, ValueError, PyreqwestError) as error:
            raise EngineLost(
                "unavailable.upstream_tls",
                f"the certificates for the endpoint cannot be used: {error}",
                retry_after=5,
            ) from error

    async def close(self) -> None:
        """Close every connection."""
        for _, client in self._clients.values():
            await client.close()


def _open(trust: Trust | None, connect: float, silence: float) -> Client:
    builder = _builder(connect, silence)
    if trust is not None and trust.ca:
        builder = builder.add_root_certificate_pem(_read(trust.ca))
    if trust is not None and trust.certificate and trust.key:
        builder = builder.identity_pem(_read(trust.key) + b"\n" + _read(trust.certificate))
    return builder.build()


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


def _builder(connect: float, silence: float) -> ClientBuilder:
    return (
        ClientBuilder()
        .no_proxy()
        .follow_redirects(False)
        .connect_timeout(timedelta(seconds=connect))
        .read_timeout(timedelta(seconds=silence))
    )


def _read(path: str) -> bytes:
    return Path(path).read_bytes()
