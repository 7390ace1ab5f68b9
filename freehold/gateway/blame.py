"""Whose fault it is what an engine answers: the client's, or that of one replica. Pure.

What the client did wrong is passed on as the engine said it (``EngineFault``): another replica
would say the same. Everything else is ours (``FreeholdError``): another replica is asked.
"""

import math
from email.utils import parsedate_to_datetime

import msgspec

from freehold.errors import Busy, EngineLost, FreeholdError
from freehold.gateway.faults import NO_JSON, EngineFault, read_engine_fault
from freehold.store.snapshot import Route

ENDPOINT = "openai"
"""The engine of what somebody else runs: we neither start nor restart it."""
LONGEST_WAIT = 86_400.0
KEY_REFUSED = frozenset({401, 403, 407})
MISPLACED = frozenset({404, 405, 408, 421, 425})
"""A route or a model that is not there, or the wrong moment: the endpoint's matter."""


def blame(
    status: int, body: bytes, retry_after: str | None = None, now: float = 0.0
) -> FreeholdError | EngineFault:
    """Return what an answer other than 200 means. ``now`` is in epoch seconds."""
    found = read_engine_fault(status, body)
    wait = read_retry_after(retry_after, now)
    if status in KEY_REFUSED:
        # Not what it says: refusals of keys like to repeat them.
        return EngineLost(
            "unavailable.upstream_key",
            f"the endpoint refuses our key ({status}): correct upstream_key of the deployment",
        )
    if status == 429 or (status >= 500 and wait is not None):
        return Busy(
            "unavailable.engine_busy",
            f"the engine has too much to do ({status}): {found.message}",
            retry_after=1.0 if wait is None else wait,
        )
    if status in MISPLACED or (not 400 <= status < 500 and status != 501):
        return EngineLost(
            "unavailable.engine_error",
            f"the engine failed ({status}): {found.message}",
            retry_after=1,
        )
    return found


def told(error: FreeholdError, route: Route) -> FreeholdError:
    """Return the error as the client hears it; an endpoint's address is for operators only."""
    if error.code != "unavailable.engine_lost" or route.engine != ENDPOINT:
        return error
    return EngineLost(
        error.code,
        f"the endpoint of {route.deployment} does not answer: whoever runs it must look; freehold "
        "doctor names it",
        retry_after=error.retry_after,
    )


def blame_error(body: bytes) -> FreeholdError | EngineFault:
    """Return what an error means that came inside an answer of status 200."""
    try:
        status = msgspec.json.decode(body, type=_Envelope).status
    except NO_JSON:
        status = 500
    return blame(status, body)


def read_retry_after(value: str | None, now: float) -> float | None:
    """Read ``Retry-After``: seconds, or a date; None where it says nothing. A day at most."""
    if value is None:
        return None
    text = value.strip()
    try:
        seconds = float(text)
        return min(LONGEST_WAIT, max(0.0, seconds)) if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        return min(LONGEST_WAIT, max(0.0, parsedate_to_datetime(text).timestamp() - now))
    except (ValueError, OverflowError):
        return None


class _Problem(msgspec.Struct):
    code: int | str | None = None
    type: str | None = None


class _Envelope(msgspec.Struct):
    error: _Problem | str | None = None

    @property
    def status(self) -> int:
        if not isinstance(self.error, _Problem):
            return 500
        if isinstance(self.error.code, int) and 400 <= self.error.code < 600:
            return self.error.code
        return 400 if self.error.type == "invalid_request_error" else 500
