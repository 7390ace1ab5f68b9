"""When it makes sense to ask a replica again that could not answer. Pure."""

from freehold.errors import Busy, EngineLost, FreeholdError

FIRST = 0.1
LONGEST = 5.0
POINTLESS = frozenset(
    {
        "unavailable.upstream_key",
        "unavailable.engine_blank",
        "unavailable.engine_differs",
    }
)
"""It would say the same again."""


def again(error: FreeholdError) -> float | None:
    """Return after how many seconds a replica may be asked again, None for not at all.

    One that was too slow is not: more of the same makes nobody faster.
    """
    if isinstance(error, Busy):
        return error.retry_after
    if isinstance(error, EngineLost) and error.code not in POINTLESS:
        return 0.0
    return None


def pause(round_: int, waits: list[float], draw: float) -> float:
    """Return the seconds to wait before the next round: doubling, and spread so that those who
    failed together do not come back together; no shorter than the least of ``waits``.

    ``round_`` counts from 0, ``draw`` is a random number from 0 to 1.
    """
    spread = min(LONGEST, FIRST * 2.0**round_) * (0.5 + draw / 2)
    return max(spread, min(waits, default=0.0))
