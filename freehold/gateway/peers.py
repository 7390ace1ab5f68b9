"""Who a request comes from when proxies stand in between. Pure.

A header about the way of a request is worth as much as the machine that sent it. It is read from
its end, one hop at a time: each address is believed because the machine after it is trusted, and
the first one that is not trusted is the client.
"""

import ipaddress
import re
from collections.abc import Sequence

from freehold.errors import Invalid

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
HOPS = 32
"""So many hops are looked at, at most."""

_FOR = re.compile(r'for=("[^"\\]*"|[^\s";,]+)', re.IGNORECASE)


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Return the networks that ``server.trusted_proxies`` names."""
    try:
        return tuple(ipaddress.ip_network(text) for text in texts)
    except ValueError as error:
        raise Invalid(
            "invalid.settings", f"server.trusted_proxies: {error}", param="trusted_proxies"
        ) from error


def address_of(text: str) -> str | None:
    """Return the address in ``1.2.3.4``, ``1.2.3.4:80``, ``::1`` or ``[::1]:80``, else None."""
    host = text.strip()
    if host.startswith("["):
        host, closed, port = host[1:].partition("]")
        if not closed or (port and not _is_port(port)):
            return None
    elif host.count(":") == 1:
        host, _, number = host.partition(":")
        if not _is_port(f":{number}"):
            return None
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = getattr(found, "ipv4_mapped", None)
    return str(mapped or found)


def client_of(peer: str, header: str, values: Sequence[str], trusted: Sequence[Network]) -> str:
    """Return the client's address; ``peer`` itself unless it, and all hops between, are trusted."""
    address = address_of(peer)
    if address is None or not _in(address, trusted):
        return peer
    hops = [hop for value in values for hop in value.split(",")]
    for hop in reversed(hops[-HOPS:]):
        before = address_of(hop if header == "x-forwarded-for" else _forwarded(hop))
        if before is None:
            break
        address = before
        if not _in(address, trusted):
            break
    return address


def _forwarded(hop: str) -> str:
    found = [part for part in map(str.strip, hop.split(";")) if part.lower().startswith("for=")]
    match = _FOR.fullmatch(found[0]) if len(found) == 1 else None
    return match.group(1).strip('"') if match else ""


def _in(address: str, trusted: Sequence[Network]) -> bool:
    found = ipaddress.ip_address(address)
    return any(found in network for network in trusted)


def _is_port(text: str) -> bool:
    return bool(re.fullmatch(r":[0-9]{1,5}", text))
