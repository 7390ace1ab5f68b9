"""``POST /v1/messages``: Anthropic's Messages API, for engines that speak chat completions."""

import msgspec

from freehold.errors import Invalid
from freehold.gateway.wire.call import Call, read_fields
from freehold.gateway.wire.count import Count, count_of
from freehold.gateway.wire.dialect import Dialect
from freehold.gateway.wire.messages.answer import FORM, MessageWriter, render
from freehold.gateway.wire.messages.prompt import translate
from freehold.gateway.wire.messages.request import Request

__all__ = ["COUNT", "DIALECT", "FORM", "Request", "read"]

_DECODER = msgspec.json.Decoder(Request)


def read(body: bytes) -> Call:
    """Read and check a request."""
    request, fields = read_fields(body, _DECODER)
    if request.max_tokens is None:
        raise Invalid("invalid.request", "max_tokens must be given", param="max_tokens")
    return translate(request, fields, len(body))


def _read_for_count(body: bytes) -> Call:
    request, fields = read_fields(body, _DECODER)
    return count_of(translate(request, fields, len(body)))


DIALECT = Dialect(name="messages", read=read, writer=MessageWriter, render=render)
COUNT = Count(name="messages", read=_read_for_count, object=None)
