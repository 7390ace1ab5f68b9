"""One record: who did what to which model, with what outcome. Never the text of a prompt."""

from typing import Annotated

import msgspec

OUTCOMES = ("ok", "refused", "failed", "cancelled")
MOST_TOKENS = 2**40
"""More than any answer: numbers beyond are a fault, and their sums would not fit the tables."""
MOST_MONEY = 2**53

Tokens = Annotated[int, msgspec.Meta(ge=0, le=MOST_TOKENS)]
Money = Annotated[int, msgspec.Meta(ge=0, le=MOST_MONEY)]
Moment = Annotated[float, msgspec.Meta(ge=0, lt=253_402_300_800)]
"""Epoch seconds, to the end of the year 9999."""


class Entry(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A record in the making; written once, when its outcome is known.

    ``at`` is in epoch seconds, durations in milliseconds. ``outcome`` is ``ok``, ``refused``,
    ``failed`` or ``cancelled`` (the client went away). ``estimated`` says that the engine reported
    no token counts and these are ours. ``trace`` and ``span`` are the request's W3C trace context.
    ``admitted`` is when its budgets let it in: limits count the request in the windows of that
    moment; None when it used nothing that counts. ``cost`` is in micro-units of the currency.
    ``cache`` is ``hit``, ``miss`` or ``bypass`` where the
    deployment keeps answers.
    """

    id: str
    at: Moment
    action: str
    outcome: str = ""
    status: int = 0
    error: str | None = None
    principal: str | None = None
    role: str | None = None
    key: str | None = None
    team: str | None = None
    client: str | None = None
    trace: str | None = None
    span: str | None = None
    dialect: str | None = None
    stream: bool = False
    requested: str | None = None
    deployment: str | None = None
    replica: str | None = None
    attempts: int = 0
    model: str | None = None
    version: int | None = None
    digest: str | None = None
    tokens_in: Tokens = 0
    tokens_out: Tokens = 0
    tokens_cached: Tokens = 0
    estimated: bool = False
    admitted: Moment | None = None
    cost: Money = 0
    cache: str | None = None
    first_token_ms: float | None = None
    total_ms: float = 0.0
    subject: str | None = None


def encode(entry: Entry) -> bytes:
    """Return the entry as one line of JSON, newline included."""
    return msgspec.json.encode(entry) + b"\n"
