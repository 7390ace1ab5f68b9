"""One record: who did what to which model, with what outcome. Never the text of a prompt."""

import msgspec


class Entry(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A record in the making; written once, when its outcome is known.

    ``at`` is in epoch seconds, durations in milliseconds. ``outcome`` is ``ok``, ``refused``,
    ``failed`` or ``cancelled`` (the client went away). ``estimated`` says that the engine reported
    no token counts and these are ours.
    """

    id: str
    at: float
    action: str
    outcome: str = ""
    status: int = 0
    error: str | None = None
    principal: str | None = None
    role: str | None = None
    key: str | None = None
    client: str | None = None
    dialect: str | None = None
    stream: bool = False
    requested: str | None = None
    deployment: str | None = None
    replica: str | None = None
    attempts: int = 0
    model: str | None = None
    version: int | None = None
    digest: str | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    estimated: bool = False
    first_token_ms: float | None = None
    total_ms: float = 0.0
    subject: str | None = None


def encode(entry: Entry) -> bytes:
    """Return the entry as one line of JSON, newline included."""
    return msgspec.json.encode(entry) + b"\n"
