"""``GET /metrics``: the numbers of the whole house, whichever gateway is asked."""

import asyncio
import ipaddress
from pathlib import Path

from freehold import __version__
from freehold.gateway.exchange import Exchange, Last, Whole
from freehold.gateway.parts import Parts
from freehold.gateway.pipeline import identify
from freehold.policy.permissions import permit
from freehold.record.entry import Entry
from freehold.record.exposition import negotiate, render
from freehold.record.families import BUILD, UP
from freehold.record.meter import Sample, gather

_NO_SCRAPER = ("forwarded", "x-forwarded-for", "x-real-ip", "via", "origin", "sec-fetch-site")
"""What proxies and browsers send: they ask for somebody who may be anywhere."""


async def show_metrics(exchange: Exchange, parts: Parts, entry: Entry) -> Last:
    """Answer a scraper, in the format it asks for."""
    if not (parts.settings.telemetry.metrics_without_key and comes_from_here(exchange)):
        permit(identify(exchange, parts, entry), "metrics:read")
    kind = negotiate(exchange.header("accept"))
    body = await asyncio.to_thread(_page, parts.home / "run", kind)
    headers = [("content-type", kind), ("x-freehold-request", exchange.id)]
    return Whole(200, headers, body)


def comes_from_here(exchange: Exchange) -> bool:
    """Say whether a program of this machine asks, for itself and not for a stranger."""
    if any(exchange.header(name) is not None for name in _NO_SCRAPER):
        return False
    host = exchange.client.rpartition(":")[0].strip("[]") or exchange.client
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _page(run: Path, kind: str) -> bytes:
    found = gather(run / "metrics")
    found[BUILD.name] = [Sample((__version__,), [1.0])]
    living = {sample.labels: sample for sample in found.get(UP.name, [])}
    wanted = {"control", *(path.stem for path in (run / "gateways").glob("*.json"))}
    found[UP.name] = [living.get((name,), Sample((name,), [0.0])) for name in sorted(wanted)]
    return render(found, kind)
