"""``POST /v1/completions``."""

from typing import Annotated

import msgspec

from freehold.gateway.wire.call import Call, StreamOptions, read_fields
from freehold.gateway.wire.dialect import Dialect, untouched
from freehold.gateway.wire.events import EventWriter

Tokens = list[int]


class Request(msgspec.Struct):
    """The fields that are checked here; all others pass through."""

    model: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    prompt: str | list[str | int | Tokens]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    echo: bool | None = None


_DECODER = msgspec.json.Decoder(Request)


def read(body: bytes) -> Call:
    """Read and check a request."""
    request, fields = read_fields(body, _DECODER)
    options = request.stream_options
    prompt = request.prompt
    many = isinstance(prompt, list) and not all(isinstance(part, int) for part in prompt)
    return Call(
        task="completion",
        path="/completions",
        model=request.model,
        stream=bool(request.stream),
        wants_usage=bool(options and options.include_usage),
        prompt=len(body) // 4,
        tokens=len(body) // 4 + (request.max_tokens or 0),
        fields=fields,
        prompts=len(prompt) if many else 1,
        choices=request.n or 1,
    )


DIALECT = Dialect(name="completions", read=read, writer=EventWriter, render=untouched)
