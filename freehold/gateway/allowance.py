"""What a request is allowed: its share of budgets, and its turn at the engines."""

from collections.abc import Iterator
from contextlib import contextmanager

from freehold.gateway.faults import rate_lines
from freehold.gateway.follow import Follower
from freehold.gateway.wire.call import Call
from freehold.identity.keys import Principal
from freehold.policy.admission import Admission
from freehold.policy.budgets import Budgets, Reservation
from freehold.policy.quotas import Size, Standing, reset
from freehold.record.entry import Entry
from freehold.routing.choose import choose
from freehold.store.snapshot import Route

Headers = list[tuple[str, str]]
_BYTES = 4
"""Bytes of a body for each token of the estimate that calls carry."""
_TEMPLATE, _TOOLS = 64, 512
"""Tokens that templates put in by themselves: a system prompt, how to call tools."""


class Allowances:
    """Reserves before and gives back after, whatever happens in between."""

    def __init__(self, budgets: Budgets, admission: Admission, follower: Follower) -> None:
        self._budgets = budgets
        self._admission = admission
        self._follower = follower

    @contextmanager
    def allow(self, principal: Principal, call: Call, entry: Entry) -> Iterator[Reservation]:
        """Hold what the call may use at most; ``OverQuota`` when that is more than is left."""
        snapshot = self._follower.snapshot
        first = choose(call.model, call.task, call.tokens, snapshot.routes)[0].route
        reserving = self._budgets.reserve(principal, size(call), entry, first, snapshot.limits)
        with reserving as made:
            try:
                yield made
            finally:
                self._admission.leave(entry.id)

    async def answer_by(self, entry: Entry, route: Route) -> None:
        """Return when a deployment may answer: its budget allows it and it is the tenant's turn."""
        self._budgets.move(entry, route)
        tenant = f"team:{entry.team}" if entry.team else f"principal:{entry.principal}"
        await self._admission.enter(entry.id, tenant, route)


def size(call: Call) -> Size:
    """Return how large a call can get: each byte a token, and what the chat template adds."""
    template = _TEMPLATE if call.task == "chat" else 0
    if "tools" in call.fields:
        template += _TOOLS
    return Size(
        prompt=call.prompt * _BYTES + _BYTES - 1 + template,
        answer=max(0, call.tokens - call.prompt),
        prompts=call.prompts,
        choices=call.choices,
        writes=call.streams,
    )


def rate_headers(made: Reservation) -> Headers:
    """Return ``x-ratelimit-...`` headers: for each measure the limit that leaves least."""
    tightest: dict[str, Standing] = {}
    for standing in made.standings:
        held = tightest.get(standing.limit.measure)
        if held is None or _left(standing) < _left(held):
            tightest[standing.limit.measure] = standing
    at = made.entry.admitted or 0.0
    return [
        line
        for each in tightest.values()
        for line in rate_lines(
            each.limit.measure, each.limit.amount, _left(each), reset(each.limit, at)
        )
    ]


def _left(standing: Standing) -> int:
    return max(0, standing.remaining - standing.want)
