"""Reach a Freehold: over HTTP where one runs, inside this process where none does."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import msgspec
from pyreqwest.client import SyncClient, SyncClientBuilder
from pyreqwest.exceptions import PyreqwestError

from freehold.cli.command import Options
from freehold.control.gateways import are_running
from freehold.control.home import Home
from freehold.errors import FreeholdError, Invalid, Refused, Unavailable
from freehold.settings import read_settings

PATIENCE = 120.0


class Door(Protocol):
    """A way to ask for administration."""

    def ask(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, bytes]:
        """Return (status, body)."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


class Remote:
    """Over HTTP."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self.key = key
        self.client: SyncClient = (
            SyncClientBuilder().no_proxy().connect_timeout(timedelta(seconds=5)).build()
        )

    def ask(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, bytes]:
        """Send the request."""
        target = self.url + path + (f"?{urlencode(query)}" if query else "")
        request = self.client.request(method, target).bearer_auth(self.key).body_bytes(body)
        try:
            response = request.timeout(timedelta(seconds=PATIENCE)).build().send()
            return response.status, response.bytes().to_bytes()
        except PyreqwestError as error:
            raise unreachable(self.url) from error

    def close(self) -> None:
        """Close connections."""
        self.client.close()


class Client:
    """Asks through a door, and turns refusals into errors."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self.serving = isinstance(door, Remote)

    def get(self, path: str, **query: str | None) -> Any:
        """Read something."""
        return self._ask("GET", path, b"", {k: v for k, v in query.items() if v is not None})

    def post(self, path: str, body: object = None) -> Any:
        """Start or make something."""
        return self._ask("POST", path, _encode(body), {})

    def put(self, path: str, body: object) -> Any:
        """Set something."""
        return self._ask("PUT", path, _encode(body), {})

    def delete(self, path: str) -> Any:
        """Remove something."""
        return self._ask("DELETE", path, b"", {})

    def _ask(self, method: str, path: str, body: bytes, query: Mapping[str, str]) -> Any:
        status, answer = self._door.ask(method, path, dict(query), body)
        try:
            document = msgspec.json.decode(answer) if answer else None
        except msgspec.DecodeError as error:
            raise Unavailable(
                "unavailable.freehold", f"what answers there (status {status}) is no Freehold"
            ) from error
        if status >= 400:
            raise read_error(status, document)
        return document


@contextmanager
def connected(options: Options) -> Iterator[Client]:
    """Yield a client for the Freehold that is meant."""
    door = _door(options)
    try:
        yield Client(door)
    finally:
        door.close()


def running(options: Options) -> Remote:
    """Return the way to a Freehold that runs; ``Unavailable`` when none does."""
    if options.url:
        if not options.key:
            raise Invalid("invalid.usage", "--url needs --key KEY, or FREEHOLD_KEY")
        return Remote(options.url, options.key)
    found = _local_url(options.home)
    if found is None:
        raise Unavailable(
            "unavailable.freehold",
            f"no Freehold runs on {options.home}: start it with freehold up",
        )
    return Remote(found, options.key or _admin_key(options.home))


def part(text: str) -> str:
    """Return a text as one part of a path."""
    return quote(text, safe="")


def unreachable(url: str) -> FreeholdError:
    """Return the error for a Freehold that does not answer."""
    return Unavailable(
        "unavailable.freehold", f"no Freehold answers at {url}: start it with freehold up"
    )


def read_error(status: int, document: Any) -> FreeholdError:
    """Return the error that an answer carries."""
    problem = document.get("error") if isinstance(document, dict) else None
    if not isinstance(problem, dict):
        return Unavailable("unavailable.freehold", f"the server answered {status}")
    kind = Refused if status in (401, 403) else FreeholdError
    return kind(str(problem.get("code")), str(problem.get("message")))


def _door(options: Options) -> Door:
    if options.url or _local_url(options.home) is not None:
        return running(options)
    # Imported here: it brings the whole house with it.
    from freehold.app.local import Local

    if are_running(options.home):
        raise Unavailable(
            "unavailable.control",
            f"the gateways of {options.home} serve, but control is gone: start it again with "
            "freehold up, or end them with freehold down",
        )
    return Local(Home(options.home), read_settings(options.home))


def _local_url(home: Path) -> str | None:
    """Return where the Freehold of a home serves, when its control is alive."""
    try:
        url = (home / "run" / "url").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return url if Home.is_locked(home) else None


def _admin_key(home: Path) -> str:
    try:
        return (home / "admin.key").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Unavailable(
            "unavailable.key", f"cannot read {home / 'admin.key'}: give --url and --key"
        ) from error


def _encode(body: object) -> bytes:
    return msgspec.json.encode(body) if body is not None else b""
