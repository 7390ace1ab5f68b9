"""``POST /v1/embeddings``."""

from typing import Annotated, Literal

import msgspec

from freehold.gateway.wire.call import Call, read_fields
from freehold.gateway.wire.dialect import Dialect, untouched
from freehold.gateway.wire.events import EventWriter


class Request(msgspec.Struct):
    """The fields that are checked here; all others pass through."""

    model: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    input: (
        Annotated[str, msgspec.Meta(min_length=1)]
        | Annotated[list[str | int | list[int]], msgspec.Meta(min_length=1, max_length=2048)]
    )
    encoding_format: Literal["float", "base64"] | None = None


_DECODER = msgspec.json.Decoder(Request)


def read(body: bytes) -> Call:
    """Read and check a request."""
    request, fields = read_fields(body, _DECODER)
    return Call(
        task="embedding",
        path="/embeddings",
        model=request.model,
        stream=False,
        wants_usage=False,
        prompt=len(body) // 4,
        tokens=len(body) // 4 if isinstance(request.input, str) else 0,
        fields=fields,
        streams=False,
    )


DIALECT = Dialect(name="embeddings", read=read, writer=EventWriter, render=untouched)
