"""What an error means over HTTP: one table, one envelope.

The envelope is OpenAI's, with two fields of ours: ``src`` says who failed, ``id`` is the request's
id, which is in the audit record and the log too.
"""

import math

import msgspec

from freehold.errors import (
    Broken,
    Conflict,
    EngineLost,
    Forbidden,
    FreeholdError,
    Invalid,
    Missing,
    NoCapacity,
    Refused,
    TooLarge,
    TooSlow,
    Unauthenticated,
    Unavailable,
    WrongMethod,
)

STATUS: tuple[tuple[type[FreeholdError], int, str], ...] = (
    (Unauthenticated, 401, "authentication_error"),
    (Forbidden, 403, "permission_error"),
    (Refused, 403, "permission_error"),
    (Missing, 404, "not_found_error"),
    (TooLarge, 413, "invalid_request_error"),
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
    body: bytes
    code: str


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
    if status == 401:
        headers.append(("www-authenticate", 'Bearer realm="freehold"'))
    return Fault(status, headers, msgspec.json.encode(Envelope(problem)), error.code)


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
    return Fault(error.status, headers, msgspec.json.encode(Envelope(problem)), error.code)


def read_engine_fault(status: int, body: bytes) -> EngineFault:
    """Read the error body of an engine, whatever its shape; never echoes more than 2,000 chars."""
    message, kind, code = "", "engine_error", f"engine.{status}"
    try:
        document = msgspec.json.decode(body)
    except msgspec.DecodeError:
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
