"""A circuit breaker: whether a replica is asked at all. Pure: events in, the next state out.

::

    closed ──score full──> open ──its time is up, one asks──> half-open ──answered──> closed
                             ^                                     │ failed
                             └───────────(for twice as long)───────┘

A failure adds to the score and an answer takes a little away, so replicas that fail several times
in a row open, and those that fail too large a share of the time. ``busy`` (a 429) opens for as long
as the replica asked, and neither counts as a failure nor doubles anything.
"""

from typing import Literal

import msgspec

State = Literal["closed", "open", "half-open", "busy"]
STATES: tuple[State, ...] = ("closed", "open", "half-open", "busy")

FAILURE = 4
ANSWER = 1
FULL = 20
"""Five failures in a row; or, in the long run, more than one request in five."""

FIRST_REST_MS = 1_000
LONGEST_REST_MS = 30_000
PROBE_MS = 30_000
"""How long a probe may take before another request may try: its asker may have been killed."""

LONGEST_BUSY_MS = 60_000
MOST_OPENINGS = 7


class Breaker(msgspec.Struct, frozen=True):
    """``until`` is in milliseconds since the epoch; ``openings`` counts those in a row."""

    state: State = "closed"
    score: int = 0
    openings: int = 0
    until: int = 0


CLOSED = Breaker()


def admits(breaker: Breaker, now: int) -> bool:
    """Say whether a request may be sent as if nothing were wrong, or as a probe."""
    return breaker.state == "closed" or now >= breaker.until or _clock_went_back(breaker, now)


def asked(breaker: Breaker, now: int) -> Breaker:
    """Return the state once an admitted request goes out: no other probes beside it."""
    if breaker.state == "closed":
        return breaker
    if breaker.state == "busy":
        return Breaker("closed", breaker.score, breaker.openings)
    return Breaker("half-open", breaker.score, breaker.openings, now + PROBE_MS)


def answered(breaker: Breaker) -> Breaker:
    """Return the state after an answer."""
    if breaker.state in ("open", "half-open"):
        return CLOSED
    score = max(0, breaker.score - ANSWER)
    if breaker.state == "busy":
        return Breaker("busy", score, breaker.openings, breaker.until)
    return Breaker("closed", score) if score else CLOSED


def failed(breaker: Breaker, now: int) -> Breaker:
    """Return the state after a failure."""
    score = min(FULL, breaker.score + FAILURE)
    if breaker.state == "open":  # one that was on its way already, or asked as the last resort
        return breaker
    if breaker.state == "half-open" or score >= FULL:
        rest = min(LONGEST_REST_MS, FIRST_REST_MS << breaker.openings)
        return Breaker("open", FULL, min(MOST_OPENINGS, breaker.openings + 1), now + rest)
    return Breaker(breaker.state, score, breaker.openings, breaker.until)


def busy(breaker: Breaker, now: int, wait: int) -> Breaker:
    """Return the state after it said that it has too much to do, for ``wait`` milliseconds."""
    if breaker.state in ("open", "half-open"):
        return Breaker("open", breaker.score, breaker.openings, now + FIRST_REST_MS)
    until = now + min(LONGEST_BUSY_MS, wait)
    return Breaker("busy", breaker.score, breaker.openings, max(until, breaker.until))


def dropped(breaker: Breaker, now: int) -> Breaker:
    """Return the state after a request that ended without a verdict: its client went away."""
    if breaker.state == "half-open":
        return Breaker("open", breaker.score, breaker.openings, now)
    return breaker


def _clock_went_back(breaker: Breaker, now: int) -> bool:
    return breaker.until > now + max(LONGEST_REST_MS, PROBE_MS, LONGEST_BUSY_MS)
