"""What an error means over HTTP: one table, and the envelope it goes out in.

The envelope is OpenAI's, with two fields of ours: ``src`` says who failed, ``id`` is the request's
id, which is in the audit record and the log too. An API with an envelope of its own has a ``Form``.
"""

import math
from collections.abc import Callable
from functools import cache

import msgspec

from freehold.errors import (
    Broken,
    Conflict,
    EngineLost,
    Exhausted,
    Forbidden,
    FreeholdError,
    Invalid,
    Missing,
    NoCapacity,
    OutOfRange,
    OverQuota,
    Refused,
    TooLarge,
    TooLate,
    TooSlow,
    Unauthenticated,
    Unavailable,
    WrongMethod,
)

STATUS: tuple[tuple[type[FreeholdError], int, str], ...] = (
    (Unauthenticated, 401, "authentication_error"),
    (Forbidden, 403, "permission_error"),
    (Exhausted, 429, "insufficient_quota"),
    (OverQuota, 429, "rate_limit_error"),
    (Refused, 403, "permission_error"),
    (Missing, 404, "not_found_error"),
    (TooLarge, 413, "invalid_request_error"),
    (TooLate, 408, "invalid_request_error"),
    (OutOfRange, 416, "invalid_request_error"),
    (WrongMethod, 405, "invalid_request_error"),
    (Conflict, 409, "conflict_error"),
    (Invalid, 400, "invalid_request_error"),
    (NoCapacity, 503, "unavailable_error"),
    (EngineLost, 503, "unavailable_error"),
    (TooSlow, 504, "timeout_error"),
    (Unavailable, 503, "unavailable_error"),
    (Broken, 500, "server_error"),
    (FreeholdError, 500, "server_error"),
)
"""Error class to (status, OpenAI error type); the first match counts."""


NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for bytes of an engine that are no JSON, no text, or nested too deeply."""


class Problem(msgspec.Struct, frozen=True):
    """The inner object of the error envelope."""

    message: str
    type: str
    code: str
    param: str | None
    src: str
    id: str
    details: dict[str, object] | msgspec.UnsetType = msgspec.UNSET


class Envelope(msgspec.Struct, frozen=True):
    """The error envelope."""

    error: Problem


class Fault(msgspec.Struct, frozen=True):
    """An error as it goes out."""

    status: int
    headers: list[tuple[str, str]]
    problem: Problem
    code: str

    @property
    def body(self) -> bytes:
        """The body in OpenAI's envelope."""
        return msgspec.json.encode(Envelope(self.problem))


class Form(msgspec.Struct, frozen=True):
    """How an API words errors: ``body`` writes one, ``id_header`` is where clients look it up."""

    body: Callable[[Fault], bytes]
    id_header: str


OPENAI = Form(body=lambda found: found.body, id_header="x-request-id")


def fault(error: FreeholdError, request_id: str) -> Fault:
    """Return the answer for an error of ours."""
    status, kind = next((s, k) for cls, s, k in STATUS if isinstance(error, cls))
    problem = Problem(
        message=error.message,
        type=kind,
        code=error.code,
        param=error.param,
        src="freehold",
        id=request_id,
        details=error.details or msgspec.UNSET,
    )
    headers = [("content-type", "application/json"), ("x-freehold-request", request_id)]
    if error.retry_after is not None:
        headers.append(("retry-after", str(max(1, math.ceil(error.retry_after)))))
    if isinstance(error, OverQuota) and "measure" in error.details:
        found = error.details
        headers += rate_lines(
            *(found[name] for name in ("measure", "amount", "remaining", "reset"))
        )
    if status == 401:
        headers.append(("www-authenticate", 'Bearer realm="freehold"'))
    return Fault(status, headers, problem, error.code)


def rate_lines(
    measure: object, amount: object, remaining: object, reset: object
) -> list[tuple[str, str]]:
    """Return the ``x-ratelimit-...`` headers of a limit; ``reset`` in seconds, None for never."""
    limit, left, until = _rate_names(str(measure))
    lines = [(limit, str(amount)), (left, str(remaining))]
    return lines if reset is None else [*lines, (until, f"{reset}s")]


@cache
def _rate_names(measure: str) -> tuple[str, str, str]:
    """Return what the headers of a measure, of which there are few, are called."""
    name = measure.replace("_", "-")
    return f"x-ratelimit-limit-{name}", f"x-ratelimit-remaining-{name}", f"x-ratelimit-reset-{name}"


class EngineFault(Exception):
    """An engine's own refusal of a request, to be passed on: status and parsed text."""

    def __init__(self, status: int, message: str, kind: str, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.code = code


def engine_fault(error: EngineFault, request_id: str) -> Fault:
    """Return the answer for an engine's refusal, in the same envelope with ``src`` engine."""
    problem = Problem(error.message, error.kind, error.code, None, "engine", request_id)
    headers = [("content-type", "application/json"), ("x-freehold-request", request_id)]
    return Fault(error.status, headers, problem, error.code)


def read_engine_fault(status: int, body: bytes) -> EngineFault:
    """Read the error body of an engine, whatever its shape; never echoes more than 2,000 chars."""
    message, kind, code = "", "engine_error", f"engine.{status}"
    try:
        document = msgspec.json.decode(body)
    except NO_JSON:
        message = body[:500].decode("utf-8", "replace")
    else:
        inner = document.get("error", document) if isinstance(document, dict) else document
        if isinstance(inner, dict):
            message = str(inner.get("message") or inner.get("detail") or inner)
            kind = str(inner.get("type") or kind)
        else:
            message = str(inner)
    if "context" in message and "exceed" in message:
        code = "context_length_exceeded"
        kind = "invalid_request_error"
    return EngineFault(status, message[:2000] or f"the engine answered {status}", kind, code)
