"""W3C trace context: what a caller says about the trace a request belongs to. Pure.

Read strictly: what is not exactly as the recommendation says is as if it were not there, and a
trace of our own begins. https://www.w3.org/TR/trace-context/
"""

import re
from collections.abc import Sequence

import msgspec

SAMPLED = 0x01
RANDOM = 0x02
MEMBERS = 32
LONGEST = 512

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_MEMBER = re.compile(
    r"(?:[a-z0-9][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)


class Trace(msgspec.Struct, frozen=True):
    """One span's place in a trace. Ids are lower-case hex; ``parent`` is "" where we begin."""

    id: str
    span: str
    parent: str = ""
    flags: int = 0
    state: str = ""

    @property
    def sampled(self) -> bool:
        """Say whether its spans are kept."""
        return bool(self.flags & SAMPLED)

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Return the headers that tell a callee."""
        found = [("traceparent", f"00-{self.id}-{self.span}-{self.flags:02x}")]
        return [*found, ("tracestate", self.state)] if self.state else found

    def child(self, span: str) -> "Trace":
        """Return the place of a span under this one."""
        return Trace(self.id, span, self.span, self.flags, self.state)


def read(parents: Sequence[str], states: Sequence[str]) -> Trace | None:
    """Return the caller's place from its ``traceparent`` and ``tracestate`` headers, if sound."""
    if len(parents) != 1:
        return None
    found = _PARENT.fullmatch(parents[0])
    if found is None:
        return None
    version, trace, span, flags, more = found.groups()
    if version == "ff" or (version == "00" and more is not None):
        return None
    if not trace.strip("0") or not span.strip("0"):
        return None
    return Trace(trace, span, "", int(flags, 16) & (SAMPLED | RANDOM), _state(states))


def start(caller: Trace | None, ids: str, ratio: float) -> Trace:
    """Return the place of the span a request begins; ``ids`` are 48 random hex digits.

    The caller's decision whether to keep the trace holds. Without a caller ``ratio`` of all traces
    are kept; every process decides the same from the trace's id.
    """
    if caller is not None:
        return caller.child(ids[32:])
    kept = int(ids[16:32], 16) < ratio * (1 << 64)
    return Trace(ids[:32], ids[32:], "", RANDOM | (SAMPLED if kept else 0))


def _state(values: Sequence[str]) -> str:
    """Return the joined list, or nothing where any of it is unsound."""
    members = [part.strip(" \t") for value in values for part in value.split(",")]
    members = [member for member in members if member]
    keys = {member.partition("=")[0] for member in members}
    text = ",".join(members)
    if len(members) > MEMBERS or len(keys) != len(members) or len(text) > LONGEST:
        return ""
    return text if all(_MEMBER.fullmatch(member) for member in members) else ""
