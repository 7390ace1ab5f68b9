"""Reach a Freehold: over HTTP where one runs, inside this process where none does."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlencode, urlsplit

import msgspec
from pyreqwest.client import SyncClient, SyncClientBuilder
from pyreqwest.exceptions import PyreqwestError

from freehold.cli.command import Options
from freehold.cli.place import serving_url
from freehold.control.gateways import are_running
from freehold.control.home import Home
from freehold.errors import FreeholdError, Invalid, Missing, Refused, Unavailable
from freehold.settings import read_settings

PATIENCE = 120.0
NEW_KEY = (
    "freehold down and freehold up write a new one there, or name another with --key or "
    "FREEHOLD_KEY"
)


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

    def __init__(
        self, url: str, key: str | None, options: Options, *, control: str | None = None
    ) -> None:
        """Reach ``url``; ``control`` is asked for administration where we know it.

        Without a key it is the home's own.
        """
        self.url = url.rstrip("/").removesuffix("/v1")
        self.key = key or _admin_key(options.home)
        self._own = None if key else options.home / "admin.key"
        self._control = control or self.url
        builder = SyncClientBuilder().no_proxy().connect_timeout(timedelta(seconds=5))
        if options.ca is not None:
            builder = builder.add_root_certificate_pem(_pem(options.ca))
        if options.certificate is not None:
            builder = builder.identity_pem(_pem(options.certificate))
        # Our own port is held by the process that holds our home: who else could answer there?
        # The certificate is made out to the name that other machines use.
        self.client: SyncClient = builder.danger_accept_invalid_certs(control is not None).build()

    def ask(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, bytes]:
        """Send the request."""
        target = self._control + path + (f"?{urlencode(query)}" if query else "")
        request = self.client.request(method, target).bearer_auth(self.key).body_bytes(body)
        try:
            response = request.timeout(timedelta(seconds=PATIENCE)).build().send()
            return response.status, response.bytes().to_bytes()
        except PyreqwestError as error:
            raise unreachable(self.url, error) from error

    def refusal(self, status: int, document: Any) -> FreeholdError:
        """Return the error that an answer carries; of a key it says which, and what to do."""
        error = read_error(status, document)
        if error.code not in ("unauthenticated.unknown_key", "unauthenticated.expired_key"):
            return error
        if self._own is None:
            text = (
                "it came from --key or FREEHOLD_KEY, which go before the home's own; an "
                "administrator makes another with freehold key create"
            )
        else:
            text = f"it stands in {self._own}: {NEW_KEY}"
        return Refused(error.code, f"{error.message}; {text}")

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

    def delete(self, path: str, **query: str | None) -> Any:
        """Remove something."""
        return self._ask("DELETE", path, b"", {k: v for k, v in query.items() if v is not None})

    def _ask(self, method: str, path: str, body: bytes, query: Mapping[str, str]) -> Any:
        status, answer = self._door.ask(method, path, dict(query), body)
        try:
            document = msgspec.json.decode(answer) if answer else None
        except msgspec.DecodeError as error:
            raise Unavailable(
                "unavailable.freehold", f"what answers there (status {status}) is no Freehold"
            ) from error
        if status >= 400:
            door = self._door
            raise (door.refusal if isinstance(door, Remote) else read_error)(status, document)
        return document


@contextmanager
def connected(options: Options, *, creates: bool = False) -> Iterator[Client]:
    """Yield a client for the Freehold that is meant; a home is made only where ``creates``."""
    door = _door(options, creates=creates)
    try:
        yield Client(door)
    finally:
        door.close()


def running(options: Options) -> Remote:
    """Return the way to a Freehold that runs; ``Unavailable`` when none does."""
    if options.url:
        if not options.key:
            raise Invalid("invalid.usage", "--url needs --key KEY, or FREEHOLD_KEY")
        _check_url(options.url)
        return Remote(options.url, options.key, options)
    found = Home.reach(options.home)
    if found is None:
        _require_home(options.home)
        raise Unavailable(
            "unavailable.freehold",
            f"no Freehold runs on {options.home}: start it with freehold up",
        )
    # Control listens on loopback, which wants no certificate.
    control = None if found.url.startswith("http://") else found.control_url
    return Remote(found.url, options.key, options, control=control)


def answering(options: Options) -> Remote:
    """Return the way to gateways that answer requests, also while control is dead."""
    url = None if options.url or Home.reach(options.home) else serving_url(options.home)
    if url is None:
        return running(options)
    return Remote(url, options.key, options, control=url)


def part(text: str) -> str:
    """Return a text as one part of a path."""
    return quote(text, safe="")


def unreachable(url: str, error: BaseException | None = None) -> FreeholdError:
    """Return the error for a Freehold that does not answer, or is not who it should be."""
    if "certificate" in _causes(error).lower():
        return Unavailable(
            "unavailable.certificate",
            f"{url} does not prove who it is, or wants a client certificate: name the authority "
            "that signed its certificate with --ca FILE, and yours with --certificate FILE "
            f"({_causes(error):.200})",
        )
    return Unavailable(
        "unavailable.freehold", f"no Freehold answers at {url}: start it with freehold up"
    )


def _causes(error: BaseException | None) -> str:
    return " ".join(str(part) for part in error.args) if error is not None else ""


def _pem(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise Invalid("invalid.usage", f"cannot read {path}: {error.strerror}") from error


def read_error(status: int, document: Any) -> FreeholdError:
    """Return the error that an answer carries."""
    problem = document.get("error") if isinstance(document, dict) else None
    if not isinstance(problem, dict):
        return Unavailable("unavailable.freehold", f"the server answered {status}")
    kind = Refused if status in (401, 403) else FreeholdError
    return kind(str(problem.get("code")), str(problem.get("message")))


def _check_url(url: str) -> None:
    with suppress(ValueError):  # of a port that is none
        found = urlsplit(url)
        if found.scheme in ("http", "https") and found.hostname and found.port != 0:
            return
    hint = "" if "://" in url else f": write http://{url}"
    raise Invalid("invalid.usage", f"--url {url:.200} is no http(s) URL{hint}")


def _require_home(home: Path) -> None:
    """A home is made by what puts something into it, never by looking."""
    if not (home / "freehold.db").exists() and not (home / "run").exists():
        raise Missing(
            "missing.home",
            f"there is no Freehold in {home}: freehold up makes one, --home names another",
        )


def _door(options: Options, *, creates: bool) -> Door:
    if options.url or Home.reach(options.home) is not None:
        return running(options)
    if not creates:
        _require_home(options.home)
    # Imported here: it brings the whole house with it.
    from freehold.app.local import Local

    if are_running(options.home):
        raise Unavailable(
            "unavailable.control",
            f"the gateways of {options.home} serve, but control is gone: start it again with "
            "freehold up, or end them with freehold down",
        )
    return Local(Home(options.home), read_settings(options.home))


def _admin_key(home: Path) -> str:
    try:
        return (home / "admin.key").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Unavailable(
            "unavailable.key", f"cannot read {home / 'admin.key'}: {NEW_KEY}"
        ) from error


def _encode(body: object) -> bytes:
    return msgspec.json.encode(body) if body is not None else b""
