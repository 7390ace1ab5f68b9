"""Whom a registry's client may tell what: where requests may go, and credentials with them."""

import base64
import re
from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

import msgspec

from freehold.errors import Invalid, Unavailable
from freehold.secret import resolve_secret
from freehold.settings import Host

_CHALLENGE = re.compile(r'([a-zA-Z]+)\s*=\s*(?:"([^"]*)"|([^\s,"]+))')


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """A registry's host, and what its settings say of it."""

    host: str
    settings: Host

    @property
    def base(self) -> str:
        """The URL that everything of the registry is below."""
        plain = self.settings.plain_http or is_loopback(self.host)
        return f"{'http' if plain else 'https'}://{self.host}"

    def basic(self) -> str | None:
        """Return the ``Authorization`` header of user and password, where there are any."""
        if not self.settings.password:
            return None
        secret = resolve_secret(self.settings.password)
        pair = f"{self.settings.username or 'freehold'}:{secret}"
        return "Basic " + base64.b64encode(pair.encode()).decode()

    def is_own(self, url: str) -> bool:
        """Say whether a URL is the registry's own: the only place that its credentials go to."""
        return _origin(url) == _origin(self.base)

    def check_redirect(self, url: str) -> None:
        """Raise ``Unavailable`` for a place that a registry may not send us to.

        Blobs may lie with another host, and are held against their digest wherever they come from;
        but never on a way that others read, nor on a machine that only we can reach.
        """
        if self.is_own(url):
            return
        found = urlsplit(url)
        if found.scheme != "https":
            raise Unavailable(
                "unavailable.redirect",
                f"{self.host} sends us to {found.scheme}://{found.netloc:.100} without TLS: "
                "refused; nothing was sent there",
            )
        if not is_private(self.host) and is_private(found.netloc):
            raise Unavailable(
                "unavailable.redirect",
                f"{self.host} sends us to {found.netloc:.100}, inside our own network: refused",
            )

    def may_know(self, realm: str) -> bool:
        """Say whether a token server may be shown the registry's password."""
        if self.is_own(realm):
            return True
        found = urlsplit(realm)
        return found.scheme == "https" and found.netloc.lower() == self.settings.token_host.lower()


def open_access(host: str, hosts: Mapping[str, Host]) -> Access:
    """Return how to reach a registry."""
    return Access(host=host, settings=hosts.get(host, Host()))


def read_challenge(header: str | None) -> tuple[str, dict[str, str]]:
    """Return the scheme (lower case) and the parameters of a ``WWW-Authenticate`` header."""
    scheme, _, rest = (header or "").partition(" ")
    found = {name.lower(): quoted or bare for name, quoted, bare in _CHALLENGE.findall(rest)}
    return scheme.lower(), found


def check_realm(access: Access, realm: str) -> None:
    """Raise ``Invalid`` for a token server that nothing may be asked of."""
    found = urlsplit(realm)
    plain = found.scheme == "http" and is_loopback(found.netloc) and is_loopback(access.host)
    if not (found.scheme == "https" or plain or access.is_own(realm)) or not found.netloc:
        raise Invalid(
            "invalid.registry", f"{access.host} names {realm:.120} to get tokens from: no https URL"
        )


def is_loopback(netloc: str) -> bool:
    """Say whether a host, with or without a port, is this machine."""
    host = urlsplit(f"//{netloc}").hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def is_private(netloc: str) -> bool:
    """Say whether a host is this machine, or an address that is not of the open internet."""
    try:
        return not ip_address(urlsplit(f"//{netloc}").hostname or "").is_global
    except ValueError:
        return is_loopback(netloc)


def _origin(url: str) -> tuple[str, str]:
    found = urlsplit(url)
    return found.scheme, found.netloc.lower()
