"""Who is served by whose replicas: adapters share those of a deployment of their base. Pure.

One process holds the weights once and all adapters beside them; a request says which one counts.
The host is the deployment that runs the base, or something made of it. Where nobody deployed that,
the first of the adapters, by name, runs it for all of them.
"""

from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from freehold.models.deploy import Guest, Plan
from freehold.runtime.engine import Launch
from freehold.runtime.wish import Desired


def share(plans: Sequence[Plan]) -> list[Plan]:
    """Return the plans with every adapter's deployment as a guest of a host."""
    hosts = {plan.deployment.name: plan for plan in plans if plan.guest is None and plan.desired}
    hosted: dict[str, list[Plan]] = {}
    for plan in plans:
        if plan.guest is not None:
            name = _host(plan.guest, hosts) or _first(plan.guest, plans)
            hosted.setdefault(name, []).append(plan)
    settled = {plan.deployment.name: _settled(plan, hosted) for plan in plans}
    return [_told(plan, settled) for plan in settled.values()]


def _told(plan: Plan, settled: Mapping[str, Plan]) -> Plan:
    """Return a guest's plan with what runs for it."""
    if plan.host is None or plan.host == plan.deployment.name:
        return plan
    return replace(plan, shared=settled[plan.host].launch)


def _host(guest: Guest, hosts: Mapping[str, Plan]) -> str | None:
    """Return the deployment that runs the best of what a guest can be added to."""
    running = {
        name: plan.desired.launches[0].weights
        for name, plan in sorted(hosts.items())
        if plan.desired is not None and plan.desired.launches
    }
    for digest in guest.carriers:
        for name, weights in running.items():
            if weights == digest:
                return name
    return None


def _first(guest: Guest, plans: Iterable[Plan]) -> str:
    """Return the first adapter's deployment, by name, that would run the same weights."""
    return min(
        plan.deployment.name
        for plan in plans
        if plan.guest is not None and plan.guest.own.weights == guest.own.weights
    )


def _settled(plan: Plan, hosted: Mapping[str, list[Plan]]) -> Plan:
    name = plan.deployment.name
    guests = [each.guest for each in hosted.get(name, ()) if each.guest is not None]
    if plan.guest is None:
        if not guests or plan.desired is None:
            return plan
        launches = tuple(_carrying(launch, guests) for launch in plan.desired.launches)
        return replace(plan, desired=replace(plan.desired, launches=launches))
    host = next(key for key, found in hosted.items() if plan in found)
    if host != name:
        follows = Desired(deployment=name, launches=(), follows=host)
        return replace(plan, desired=follows, host=host)
    launches = (_carrying(plan.guest.own, guests),) * plan.deployment.replicas
    idle = plan.deployment.idle_unload or 0.0
    desired = Desired(deployment=name, launches=launches, idle_unload=idle)
    return replace(plan, desired=desired, host=name)


def _carrying(launch: Launch, guests: Iterable[Guest]) -> Launch:
    sizes = {guest.adapter: guest.bytes for guest in guests}
    # In an order of their own: a deployment of the same adapter under another name changes nothing.
    return replace(launch, adapters=tuple(sorted(sizes)), bytes=launch.bytes + sum(sizes.values()))
