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
    Family,
)
from freehold.record.meter import OTHER, Labels, Meter

PROVIDER = "freehold"
MOST_KINDS = 4096
_OPERATIONS = MappingProxyType({"completions": "text_completion", "embeddings": "embeddings"})


def operation(dialect: str) -> str:
    """Return what the GenAI conventions call a request of this dialect."""
    return _OPERATIONS.get(dialect, "chat")


def requested_model(entry: Entry) -> str:
    """Return the name asked for; names of nothing are one and the same, there is no end of them."""
    return (entry.requested or "") if entry.deployment else OTHER


class Measures:
    """Counts finished requests. Where the numbers of a kind of request are is looked up once."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._commit = meter.place(AUDIT_COMMIT, ())
        self._kinds: dict[tuple[object, ...], _Kind] = {}

    def count(self, entry: Entry, commit: float) -> None:
        """Count a request; ``commit`` is the seconds its record took to be durable."""
        status = entry.status // 100
        key = (entry.action, entry.deployment, entry.dialect, entry.outcome, status, entry.error,
               entry.requested, entry.model)  # fmt: skip
        kind = self._kinds.get(key)
        if kind is None:
            if len(self._kinds) > MOST_KINDS:
                self._kinds.clear()
            kind = self._kinds[key] = _Kind(self._meter, entry)
        self._meter.drop(self._commit, AUDIT_COMMIT.buckets, commit)
        kind.count(entry, commit)


class _Kind:
    """Requests of one kind: the labels of all they add to, and where those numbers are."""

    def __init__(self, meter: Meter, entry: Entry) -> None:
        deployment, dialect = entry.deployment or "", entry.dialect or ""
        model = (operation(dialect), PROVIDER, requested_model(entry), entry.model or "")
        failure = "" if entry.outcome == "ok" else entry.error or entry.outcome
        outcome = (entry.action, deployment, dialect, entry.outcome, f"{entry.status // 100}xx")
        self._meter = meter
        self._places: dict[str, int | None] = {}
        self._labels: dict[str, Labels] = {
            REQUESTS.name: outcome,
            ERRORS.name: (entry.error or "",),
            FAILOVERS.name: (deployment,),
            REQUEST_DURATION.name: (deployment, dialect, entry.outcome),
            SERVER_DURATION.name: (*model, failure),
            TIME_TO_FIRST_TOKEN.name: (deployment, dialect),
            SERVER_FIRST_TOKEN.name: model,
            TIME_PER_OUTPUT_TOKEN.name: (deployment, dialect),
            SERVER_PER_TOKEN.name: model,
        }
        for kind in ("input", "output", "cached"):
            self._labels[TOKENS_USED.name + kind] = (deployment, kind)
            self._labels[TOKEN_USAGE.name + kind] = (*model, kind)

    def count(self, entry: Entry, commit: float) -> None:
        """Count one of them."""
        self._add(REQUESTS)
        if entry.error is not None:
            self._add(ERRORS)
        if entry.dialect is None:
            return
        seconds = entry.total_ms / 1000 + commit
        self._observe(REQUEST_DURATION, seconds)
        self._observe(SERVER_DURATION, seconds)
        if entry.attempts > 1:
            self._add(FAILOVERS, entry.attempts - 1)
        self._count_tokens(entry)
        if entry.outcome != "ok" or entry.first_token_ms is None or not entry.tokens_out:
            return
        first = entry.first_token_ms / 1000
        self._observe(TIME_TO_FIRST_TOKEN, first)
        self._observe(SERVER_FIRST_TOKEN, first)
        if entry.tokens_out > 1:
            each = max(0.0, entry.total_ms / 1000 - first) / (entry.tokens_out - 1)
            self._observe(TIME_PER_OUTPUT_TOKEN, each)
            self._observe(SERVER_PER_TOKEN, each)

    def _count_tokens(self, entry: Entry) -> None:
        if entry.outcome in ("refused", "failed") and entry.first_token_ms is None:
            return  # no engine is known to have read or written anything
        if entry.tokens_in:
            self._add(TOKENS_USED, entry.tokens_in, "input")
            self._observe(TOKEN_USAGE, entry.tokens_in, "input")
        if entry.tokens_out:
            self._add(TOKENS_USED, entry.tokens_out, "output")
            self._observe(TOKEN_USAGE, entry.tokens_out, "output")
        if entry.tokens_cached:
            self._add(TOKENS_USED, entry.tokens_cached, "cached")

    def _add(self, family: Family, amount: float = 1.0, kind: str = "") -> None:
        self._meter.bump(self._place(family, family.name + kind), amount)

    def _observe(self, family: Family, value: float, kind: str = "") -> None:
        self._meter.drop(self._place(family, family.name + kind), family.buckets, value)

    def _place(self, family: Family, name: str) -> int | None:
        if name not in self._places:
            self._places[name] = self._meter.place(family, self._labels[name])
        return self._places[name]
