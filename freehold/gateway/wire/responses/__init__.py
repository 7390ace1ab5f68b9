"""``POST /v1/responses``: the Responses API, for engines that speak chat completions.

As Open Responses (2026-04-24) has it.
"""

import msgspec

from freehold.gateway.wire.call import Call, Fields, read_fields
from freehold.gateway.wire.count import Count, count_of
from freehold.gateway.wire.message import cannot
from freehold.gateway.wire.responses.answer import ResponseWriter, resource
from freehold.gateway.wire.responses.items import normalised
from freehold.gateway.wire.responses.prompt import check, translate
from freehold.gateway.wire.responses.request import Request

__all__ = ["COUNT", "Request", "ResponseWriter", "normalised", "read", "resource", "translate"]

_DECODER = msgspec.json.Decoder(Request)


def read(body: bytes) -> tuple[Request, Fields]:
    """Read and check a request, but for its items."""
    request, fields = read_fields(body, _DECODER)
    check(request, fields)
    return request, fields


def _read_for_count(body: bytes) -> Call:
    request, fields = read(body)
    if request.previous_response_id:
        raise cannot("previous_response_id", "only what a request itself says is counted")
    return count_of(translate(request, fields, normalised(request.input, "count"), len(body)))


COUNT = Count(name="responses", read=_read_for_count)
