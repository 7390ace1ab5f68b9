"""The gateway processes: what goes on in them, and their replacement one by one."""

import msgspec

from freehold.control.control import Control
from freehold.gateway.admin.ask import Ask
from freehold.runtime.process import resident_of
from freehold.runtime.standing import Standing

HEARD_WITHIN = 0.5
"""Seconds in which a gateway says how it stands; of one that does not, what it said last."""


class GatewayView(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway process. ``revision`` is the snapshot it works from; memory in bytes.

    ``inflight`` counts requests at engines, ``requests`` all that are under way, ``tasks`` what its
    event loop works on, ``connections`` what is open to it, ``links`` the connections to engines in
    use, ``reservations`` what requests hold of limits and places, or wait for.
    """

    name: str
    state: str
    pid: int | None
    resident: int
    revision: int
    inflight: int
    requests: int
    connections: int
    tasks: int
    reservations: int
    links: int


class GatewaysView(msgspec.Struct, frozen=True, kw_only=True):
    """All of them. ``rolling`` while some are to be replaced; ``trouble`` with the certificate.

    ``pending`` are changed settings, by section, that control follows only from its next start on.
    """

    rolling: bool
    trouble: str | None
    pending: list[str]
    gateways: list[GatewayView]


async def show(_ask: Ask, control: Control) -> GatewaysView:
    """Show the gateway processes, as they stand now."""
    await control.publisher.hear(control.gateways.names, HEARD_WITHIN)
    return GatewaysView(
        rolling=control.gateways.is_rolling,
        trouble=control.gateways.trouble,
        pending=control.gateways.pending,
        gateways=views(control),
    )


async def restart(ask: Ask, control: Control) -> GatewaysView:
    """Read settings and certificate again and replace every gateway; no request is dropped."""
    control.gateways.restart()
    return await show(ask, control)


def views(control: Control) -> list[GatewayView]:
    """Return every gateway as it was heard of last."""
    return [_view(name, pid, control) for name, pid in sorted(control.gateways.pids().items())]


def _view(name: str, pid: int, control: Control) -> GatewayView:
    seen = control.publisher.sightings.get(name)
    door = seen.door if seen else Standing()
    return GatewayView(
        name=name,
        state=control.gateways.state(name),
        pid=pid,
        resident=resident_of(pid),
        revision=seen.revision if seen else 0,
        inflight=sum(seen.inflight.values()) if seen else 0,
        requests=door.requests,
        connections=door.connections,
        tasks=door.tasks,
        reservations=door.reservations,
        links=door.links,
    )
