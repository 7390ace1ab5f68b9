"""How much may they? Decides from limits and numbers alone. Pure: no I/O, no clock.

A request is let in when, for every limit that applies, what is spent in the window, what running
requests have reserved of it and what this one may use at most stay within the amount.
"""

import math
from collections.abc import Sequence

import msgspec

from freehold.errors import Exhausted, OverQuota
from freehold.record.cost import cost
from freehold.record.windows import ends, moment
from freehold.store.snapshot import Limit, Route

SCOPES = ("key", "principal", "team", "deployment")
DEPLOYMENT = "deployment"
MEASURES = ("requests", "tokens_in", "tokens_out", "tokens", "money", "concurrency")
Amounts = tuple[int, int, int, int, int, int]
"""One number a measure, in the order of ``MEASURES``."""

SOON = 1.0
"""Seconds after which a running request may have given back what it reserved."""
PATIENCE = 120.0
"""Seconds up to which people are told how long it takes, above which by the clock."""
MONEY = 1_000_000
"""Micro-units in a unit of the currency."""


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """How large a request can get: bytes of its prompt, tokens of each answer (0: not said)."""

    prompt: int
    answer: int
    prompts: int = 1
    choices: int = 1
    writes: bool = True


class Standing(msgspec.Struct, frozen=True):
    """A limit, what is spent and reserved of it, and what a request wants."""

    limit: Limit
    spent: int
    reserved: int
    want: int

    @property
    def remaining(self) -> int:
        """What is neither spent nor reserved."""
        return max(0, self.limit.amount - self.spent - self.reserved)

    @property
    def fits(self) -> bool:
        """Whether what is wanted is left."""
        return self.spent + self.reserved + self.want <= self.limit.amount


def amounts(tokens_in: int, tokens_out: int, money: int) -> Amounts:
    """Return what one request with these numbers counts for each measure."""
    return (1, tokens_in, tokens_out, tokens_in + tokens_out, money, 1)


def most(size: Size, route: Route, unstated: int) -> Amounts:
    """Return the most a request can use of a deployment.

    No tokenizer makes more tokens of a text than it has bytes, and nothing exceeds the context.
    ``unstated`` is the length of an answer that neither the request nor the deployment bounds.
    """
    context = route.context
    tokens_in = size.prompt
    tokens_out = size.answer or context or unstated
    if context is not None and size.writes:
        tokens_in = min(tokens_in, context * size.prompts)
        tokens_out = min(tokens_out, context)
    tokens_out = tokens_out * size.prompts * size.choices if size.writes else 0
    money = cost(route.price_in, route.price_out, tokens_in, tokens_out)
    return amounts(tokens_in, tokens_out, money)


def decide(standings: Sequence[Standing], now: float) -> OverQuota | None:
    """Return None when all limits leave room, else the refusal that lasts longest.

    Where a limit of the caller's own refuses, that one is told: no other deployment would help.
    """
    refusing = [standing for standing in standings if not standing.fits]
    if not refusing:
        return None
    own = [standing for standing in refusing if standing.limit.scope != DEPLOYMENT]
    return _refusal(max(own or refusing, key=lambda one: _wait(one, now) or 1e12), now)


def is_elsewhere_free(refusal: OverQuota) -> bool:
    """Say whether only a deployment refuses, so that another one may answer."""
    return refusal.details.get("scope") == DEPLOYMENT


def mildest(refusals: Sequence[OverQuota]) -> OverQuota:
    """Return the refusal that is over first: those of the other deployments do not matter then."""
    return min(refusals, key=lambda one: math.inf if one.retry_after is None else one.retry_after)


def _wait(standing: Standing, now: float) -> float | None:
    """Return the seconds until another try makes sense; None when no time will help."""
    limit = standing.limit
    if standing.want > limit.amount:
        return None
    if standing.spent + standing.want <= limit.amount:  # only running requests are in the way
        return SOON
    return None if limit.window == "total" else max(1.0, ends(limit.window, now) - now)


def _refusal(standing: Standing, now: float) -> OverQuota:
    limit, wait = standing.limit, _wait(standing, now)
    details: dict[str, object] = {
        "limit": describe(limit),
        "scope": limit.scope,
        "measure": limit.measure,
        "amount": limit.amount,
        "remaining": standing.remaining,
        "wanted": standing.want,
        "reset": reset(limit, now),
    }
    if limit.measure == "concurrency":
        text = f"{limit.scope} {limit.name} has {limit.amount} requests running, all it may: retry"
        return OverQuota("quota.concurrency", text, retry_after=SOON, details=details)
    if wait is None and limit.window == "total" and limit.measure == "money":
        text = f"the budget is used up ({describe(limit)}): an administrator can raise it"
        return Exhausted("quota.exhausted", text, details=details)
    if standing.want > limit.amount:
        text = (
            f"the request may use {shown(limit.measure, standing.want)} and the limit is "
            f"{describe(limit)}: ask for less with max_tokens"
        )
        return OverQuota("quota.too_large", text, details=details)
    text = (
        f"over the limit {describe(limit)}: {shown(limit.measure, standing.remaining)} left, up to "
        f"{shown(limit.measure, standing.want)} needed{_again(wait, now)}"
    )
    return OverQuota("quota.exceeded", text, retry_after=wait, details=details)


def _again(wait: float | None, now: float) -> str:
    """Return when another try makes sense, in words; nothing where no time will help."""
    if wait is None:
        return ""
    if wait <= PATIENCE:
        return f": retry in {math.ceil(wait)} s"
    return f": retry from {moment(now + wait)} UTC"


def reset(limit: Limit, now: float) -> int | None:
    """Return the seconds until a limit's window ends, rounded up; None for no window."""
    left = ends(limit.window, now) - now
    return math.ceil(left) if math.isfinite(left) else None


def describe(limit: Limit) -> str:
    """Return a limit as people write it: ``team:support tokens=1000/day``."""
    per = "" if limit.window == "total" else f"/{limit.window}"
    return f"{limit.scope}:{limit.name} {limit.measure}={_number(limit.measure, limit.amount)}{per}"


def shown(measure: str, amount: int) -> str:
    """Return an amount with its unit."""
    unit = "tokens" if measure.startswith("tokens") else measure
    return f"{_number(measure, amount)} {unit}"


def _number(measure: str, amount: int) -> str:
    if measure != "money":
        return str(amount)
    whole, rest = divmod(amount, MONEY)
    return f"{whole}.{rest:06}".rstrip("0").rstrip(".")
