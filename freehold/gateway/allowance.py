"""What a request is allowed: its share of budgets, and its turn at the engines."""

import asyncio
from collections.abc import Sequence

from freehold.errors import OverQuota
from freehold.gateway.faults import rate_lines
from freehold.gateway.follow import Follower
from freehold.gateway.wire.call import Call
from freehold.identity.keys import Principal
from freehold.policy.admission import Admission
from freehold.policy.budgets import Budgets, Reservation
from freehold.policy.quotas import Size, Standing, is_elsewhere_free, reset
from freehold.record.entry import Entry
from freehold.routing.choose import Choice
from freehold.store.snapshot import Route

Headers = list[tuple[str, str]]
_BYTES = 4
"""Bytes of a body for each token of the estimate that calls carry."""
_TEMPLATE, _TOOLS = 64, 512
"""Tokens that templates put in by themselves: a system prompt, how to call tools."""


class Spent(Exception):
    """A deployment has no room left within limits of its own: ``refusal`` says how."""

    def __init__(self, refusal: OverQuota) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Allowance:
    """Holds what a call may use at most, while the block runs."""

    def __init__(self, made: Reservation, budgets: Budgets, admission: Admission) -> None:
        self._made = made
        self._budgets = budgets
        self._admission = admission

    def __enter__(self) -> Reservation:
        return self._made

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # A client that left did not fail: an engine worked for it, whether anybody listened or not.
        failed = kind is not None and not issubclass(kind, asyncio.CancelledError)
        self._budgets.close(self._made, failed=failed)
        self._admission.leave(self._made.entry.id)


class Allowances:
    """Reserves before and gives back after, whatever happens in between."""

    def __init__(self, budgets: Budgets, admission: Admission, follower: Follower) -> None:
        self._budgets = budgets
        self._admission = admission
        self._follower = follower

    def allow(
        self, principal: Principal, call: Call, entry: Entry, choices: Sequence[Choice]
    ) -> Allowance:
        """Reserve what the call may use at most, of the first choice whose limits leave that.

        ``OverQuota`` when it is more than is left, or than is left of every choice.
        """
        limits = self._follower.snapshot.limits
        routes = [choice.route for choice in choices]
        made = self._budgets.reserve(principal, size(call), entry, routes, limits)
        return Allowance(made, self._budgets, self._admission)

    async def answer_by(self, entry: Entry, route: Route, patience: float) -> None:
        """Return when a deployment may answer: its budget allows it and it is the tenant's turn.

        Nobody waits for that turn longer than ``patience`` seconds. ``Spent`` when a limit of its
        own is used up: then another deployment may.
        """
        try:
            self._budgets.move(entry, route)
        except OverQuota as refusal:
            if is_elsewhere_free(refusal):
                raise Spent(refusal) from refusal
            raise
        tenant = f"team:{entry.team}" if entry.team else f"principal:{entry.principal}"
        await self._admission.enter(entry.id, tenant, route, patience)


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
