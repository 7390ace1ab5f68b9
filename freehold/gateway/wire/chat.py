"""``POST /v1/chat/completions``."""

from typing import Annotated, Literal

import msgspec

from freehold.gateway.wire.call import Call, StreamOptions, read_fields
from freehold.gateway.wire.count import Count, count_of
from freehold.gateway.wire.dialect import Dialect, untouched
from freehold.gateway.wire.events import EventWriter

Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]


class Message(msgspec.Struct):
    """One message; its other fields are the engine's business."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, msgspec.Raw]] | None = None


class Request(msgspec.Struct):
    """The fields that are checked here; all others pass through."""

    model: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Fraction | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    tools: list[dict[str, msgspec.Raw]] | None = None
    response_format: dict[str, msgspec.Raw] | None = None


_DECODER = msgspec.json.Decoder(Request)


def read(body: bytes) -> Call:
    """Read and check a request."""
    request, fields = read_fields(body, _DECODER)
    answer = request.max_completion_tokens or request.max_tokens or 0
    options = request.stream_options
    return Call(
        task="chat",
        path="/chat/completions",
        model=request.model,
        stream=bool(request.stream),
        wants_usage=bool(options and options.include_usage),
        prompt=len(body) // 4,
        tokens=len(body) // 4 + answer,
        fields=fields,
        choices=request.n or 1,
    )


COUNT = Count(name="chat", read=lambda body: count_of(read(body)))
DIALECT = Dialect(name="chat", read=read, writer=EventWriter, render=untouched)
