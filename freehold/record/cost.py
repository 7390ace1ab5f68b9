"""What an answer costs, and who is charged for it. Pure; money is whole micro-units."""

from freehold.record.entry import MOST_MONEY

MILLION = 1_000_000
Subject = tuple[str, str]
"""(scope, name): ``("team", "support")``."""


def cost(price_in: int, price_out: int, tokens_in: int, tokens_out: int) -> int:
    """Return micro-units, rounded up; prices are micro-units for a million tokens."""
    return min(MOST_MONEY, -(-(price_in * tokens_in + price_out * tokens_out) // MILLION))


def subjects(
    key: str | None, principal: str | None, team: str | None, deployment: str | None
) -> tuple[Subject, ...]:
    """Return who a request counts for."""
    pairs = (("key", key), ("principal", principal), ("team", team), ("deployment", deployment))
    return tuple((scope, name) for scope, name in pairs if name)
