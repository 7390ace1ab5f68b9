"""What a request that is over adds to the numbers. No principal and no key is ever a label."""

from types import MappingProxyType

from freehold.record.entry import Entry
from freehold.record.families import (
    AUDIT_COMMIT,
    ERRORS,
    FAILOVERS,
    REQUEST_DURATION,
    REQUESTS,
    SERVER_DURATION,
    SERVER_FIRST_TOKEN,
    SERVER_PER_TOKEN,
    TIME_PER_OUTPUT_TOKEN,
    TIME_TO_FIRST_TOKEN,
    TOKEN_USAGE,
    TOKENS_USED,
)
from freehold.record.meter import OTHER, Meter

PROVIDER = "freehold"
_OPERATIONS = MappingProxyType({"completions": "text_completion", "embeddings": "embeddings"})


def operation(dialect: str) -> str:
    """Return what the GenAI conventions call a request of this dialect."""
    return _OPERATIONS.get(dialect, "chat")


def requested_model(entry: Entry) -> str:
    """Return the name asked for; names of nothing are one and the same, there is no end of them."""
    return (entry.requested or "") if entry.deployment else OTHER


def measure(meter: Meter, entry: Entry, commit: float) -> None:
    """Count a finished request; ``commit`` is the seconds its record took to be durable."""
    deployment, dialect = entry.deployment or "", entry.dialect or ""
    status = f"{entry.status // 100}xx"
    meter.add(REQUESTS, (entry.action, deployment, dialect, entry.outcome, status))
    meter.observe(AUDIT_COMMIT, (), commit)
    if entry.error is not None:
        meter.add(ERRORS, (entry.error,))
    if dialect:
        _measure_answer(meter, entry, deployment, dialect, commit)


def _measure_answer(
    meter: Meter, entry: Entry, deployment: str, dialect: str, commit: float
) -> None:
    seconds = entry.total_ms / 1000 + commit
    model = (operation(dialect), PROVIDER, requested_model(entry), entry.model or "")
    failure = "" if entry.outcome == "ok" else entry.error or entry.outcome
    meter.observe(REQUEST_DURATION, (deployment, dialect, entry.outcome), seconds)
    meter.observe(SERVER_DURATION, (*model, failure), seconds)
    if entry.attempts > 1:
        meter.add(FAILOVERS, (deployment,), entry.attempts - 1)
    _measure_tokens(meter, entry, deployment, model)
    if entry.outcome != "ok" or entry.first_token_ms is None or not entry.tokens_out:
        return
    first = entry.first_token_ms / 1000
    meter.observe(TIME_TO_FIRST_TOKEN, (deployment, dialect), first)
    meter.observe(SERVER_FIRST_TOKEN, model, first)
    if entry.tokens_out > 1:
        each = max(0.0, entry.total_ms / 1000 - first) / (entry.tokens_out - 1)
        meter.observe(TIME_PER_OUTPUT_TOKEN, (deployment, dialect), each)
        meter.observe(SERVER_PER_TOKEN, model, each)


def _measure_tokens(meter: Meter, entry: Entry, deployment: str, model: tuple[str, ...]) -> None:
    if entry.outcome in ("refused", "failed") and entry.first_token_ms is None:
        return  # no engine is known to have read or written anything
    used = (("input", entry.tokens_in), ("output", entry.tokens_out))
    for kind, count in used:
        if count:
            meter.add(TOKENS_USED, (deployment, kind), count)
            meter.observe(TOKEN_USAGE, (*model, kind), count)
    if entry.tokens_cached:
        meter.add(TOKENS_USED, (deployment, "cached"), entry.tokens_cached)
