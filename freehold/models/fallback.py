"""Back to the wheel: which launches keep away from a build that does not come up. Pure.

Only where the runtime chose the build. A doubt is about one launch, since what does not come up may
be a model as well: too large for the card, or of a kind that the build cannot read. That the wheel
then comes up does not condemn the build yet; whether it still starts at all is tried elsewhere.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from freehold.models.deploy import Plan, avoided, is_free
from freehold.runtime.engine import Launch
from freehold.runtime.replica import Replica

TRIES = 2
"""Starts in a row that came to nothing after which the wheel is taken.

Once may be chance, as when another process has just taken the memory. It is below what makes a
deployment count as failed: nobody is told that while there is a way left.
"""


class Doubt(msgspec.Struct, frozen=True, kw_only=True):
    """Why a launch keeps away from its build. ``tried``: the build itself was looked at since."""

    build: str
    reason: str
    tried: bool = False


Doubts = Mapping[Launch, Doubt]


def doubted(
    plans: Iterable[Plan], replicas: Iterable[Replica], default: str
) -> dict[Launch, Doubt]:
    """Return the launches that shall be tried on the wheel from now on.

    ``default`` is the engine of deployments that name none.
    """
    free = {
        launch for plan in plans if is_free(plan.deployment, default) for launch in _launches(plan)
    }
    return {
        replica.launch: Doubt(build=replica.launch.native.build, reason=replica.reason or "")
        for replica in replicas
        if replica.launch in free and replica.launch.native and replica.unstarted >= TRIES
    }


def still(plans: Iterable[Plan], doubts: Doubts) -> dict[Launch, Doubt]:
    """Return the doubts about launches that would still be made without them."""
    wanted = {launch for plan in plans for launch in _launches(plan)}
    return {launch: doubt for launch, doubt in doubts.items() if launch in wanted}


def without(doubts: Doubts, build: str) -> dict[Launch, Doubt]:
    """Return the doubts that are not about a build."""
    return {launch: doubt for launch, doubt in doubts.items() if doubt.build != build}


def fall_back(plans: Iterable[Plan], doubts: Doubts) -> list[Plan]:
    """Return the plans with the wheel in place of what is doubted."""
    return [_fallen(plan, doubts) for plan in plans]


def on_wheel(launch: Launch) -> Launch:
    """Return the launch with the wheel's engine, and nothing else changed."""
    return replace(launch, native=None)


def untried(doubts: Doubts, replicas: Iterable[Replica]) -> list[Launch]:
    """Return doubted launches that came up on the wheel: it was not the model, or not it alone."""
    up = {replica.launch for replica in replicas if replica.state == "ready"}
    return [
        launch for launch, doubt in doubts.items() if not doubt.tried and on_wheel(launch) in up
    ]


def is_up(build: str, replicas: Iterable[Replica]) -> bool:
    """Say whether anything runs on a build."""
    return any(
        replica.state == "ready" and replica.launch.native and replica.launch.native.build == build
        for replica in replicas
    )


def _launches(plan: Plan) -> Sequence[Launch]:
    return plan.desired.launches if plan.desired is not None else ()


def _fallen(plan: Plan, doubts: Doubts) -> Plan:
    if plan.shared is not None and plan.shared in doubts:
        plan = replace(plan, shared=on_wheel(plan.shared))
    found = [doubts[launch] for launch in _launches(plan) if launch in doubts]
    if plan.desired is None or not found:
        return plan
    launches = tuple(on_wheel(each) if each in doubts else each for each in _launches(plan))
    return replace(
        plan,
        desired=replace(plan.desired, launches=launches),
        note=avoided(found[0].build, found[0].reason),
    )
