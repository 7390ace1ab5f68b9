"""A call: what one request asks for, whatever dialect it came in.

The client's fields are kept as the raw JSON they were (``Raw``), so what we do not know passes
through untouched, numbers to the last digit.
"""

from typing import TypeVar

import msgspec

from freehold.errors import Invalid
from freehold.gateway.wire import strict

T = TypeVar("T")
Fields = dict[str, msgspec.Raw]

_FIELDS = msgspec.json.Decoder(Fields)


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One request for a model.

    ``task`` is ``chat``, ``completion``, ``embedding`` or ``rerank``; ``path`` is the engine's
    route for it. ``prompt`` estimates the tokens it says, ``tokens`` the context it needs.
    ``streams`` says whether that route can; an ``optional`` one engines may lack. ``prompts`` is
    how many prompts share the request, ``choices`` how many answers each gets.
    """

    task: str
    path: str
    model: str
    stream: bool
    wants_usage: bool
    prompt: int
    tokens: int
    fields: Fields
    prompts: int = 1
    choices: int = 1
    streams: bool = True
    optional: bool = False

    def body(self, model: str, *, stream: bool, sets: str = "") -> bytes:
        """Return the request for an engine that calls the model ``model``.

        ``sets`` is a JSON object of fields that the client has no say in.
        """
        fields: dict[str, object] = {**self.fields, "model": model}
        if sets:
            fields |= _FIELDS.decode(sets)
        if self.streams:
            fields["stream"] = stream
            if stream:
                fields["stream_options"] = {"include_usage": True}
            else:
                fields.pop("stream_options", None)
        return msgspec.json.encode(fields)


class StreamOptions(msgspec.Struct):
    """``stream_options`` of a request."""

    include_usage: bool | None = None


def read_fields(body: bytes, decoder: msgspec.json.Decoder[T]) -> tuple[T, Fields]:
    """Return the validated request and its raw fields; ``Invalid`` says where it is wrong."""
    request, fields = decode(body, decoder), _FIELDS.decode(body)
    strict.check(body, fields)
    return request, fields


def decode(body: bytes, decoder: msgspec.json.Decoder[T], within: str = "") -> T:
    """Return what a body says; ``within`` names what it is a part of, for errors."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        text, _, where = str(error).partition(" - at ")
        path = ".".join(filter(None, (within, where.strip("`").lstrip("$").lstrip(".")))) or None
        at = f" at {path}" if path else ""
        raise Invalid("invalid.request", f"{text}{at}", param=path) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid("invalid.json", f"the body is not valid JSON: {error}") from error
