"""An engine's chat answer as a Messages answer: the document, and the events of a stream."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from freehold.gateway.faults import NO_JSON, Fault, Form
from freehold.gateway.wire.call import Call
from freehold.gateway.wire.dialect import Chunk, Reply
from freehold.gateway.wire.pieces import Arguments, CallBegin, Piece, Pieces, Refusal, Text, Thought
from freehold.gateway.wire.usage import Counts, Tally

_encode = msgspec.json.encode
_STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""Status to Anthropic's word; for others it is ``invalid_request_error`` or ``api_error``."""


def stop(pieces: Pieces) -> dict[str, str | None]:
    """Return why it ended. Engines asked for one certain tool say ``stop`` when they called it."""
    finish = pieces.finish or "stop"
    if pieces.calls and finish == "stop":
        finish = "tool_calls"
    if pieces.stop is not None and finish == "stop":
        return {"stop_reason": "stop_sequence", "stop_sequence": pieces.stop}
    return {"stop_reason": _STOP_REASONS.get(finish, "end_turn"), "stop_sequence": None}


def usage(counts: Counts) -> dict[str, object]:
    """Return the counts in Anthropic's words: what came from the cache counts apart."""
    return {
        "input_tokens": max(counts.prompt - counts.cached, 0),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": counts.cached,
        "output_tokens": counts.completion,
        **({"estimated": True} if counts.estimated else {}),
    }


def head(call: Call, request_id: str) -> dict[str, Any]:
    """Return a message that has only begun."""
    return {
        "id": f"msg_{request_id.removeprefix('req-')}",
        "type": "message",
        "role": "assistant",
        "model": call.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def block(piece: Piece, message_id: str) -> dict[str, Any]:
    """Return the empty block that a piece opens."""
    if isinstance(piece, Thought):
        return {"type": "thinking", "thinking": "", "signature": ""}
    if isinstance(piece, CallBegin):
        made = f"toolu_{message_id.removeprefix('msg_')}_{piece.index}"
        return {"type": "tool_use", "id": piece.id or made, "name": piece.name, "input": {}}
    return {"type": "text", "text": ""}


def render(call: Call, reply: Reply, request_id: str) -> bytes:
    """Write a whole answer."""
    message, pieces = head(call, request_id), Pieces()
    content: list[dict[str, Any]] = message["content"]
    texts: list[list[str]] = []
    for piece in (*pieces.feed(reply.data), *pieces.end()):
        if not isinstance(piece, Arguments):
            opened = block(piece, message["id"])
            if isinstance(piece, CallBegin) or not content or content[-1]["type"] != opened["type"]:
                content.append(opened)
                texts.append([])
        if not isinstance(piece, CallBegin):
            texts[-1].append(piece.text)
    for opened, parts in zip(content, texts, strict=True):
        _fill(opened, "".join(parts))
    return _encode({**message, **stop(pieces), "usage": usage(reply.counts)})


def _fill(opened: dict[str, Any], text: str) -> None:
    if opened["type"] != "tool_use":
        opened[opened["type"]] = text
        return
    try:
        found = msgspec.json.decode(text or "{}", type=dict[str, msgspec.Raw])
    except NO_JSON:  # cut off, or the model's mistake: it must not get lost
        opened["input"] = {"INVALID_JSON": text}
    else:
        opened["input"] = found


class MessageWriter:
    """Writes the events of one answer."""

    def __init__(self, call: Call, request_id: str) -> None:
        self._head = head(call, request_id)
        self._pieces = Pieces()
        self._index = -1
        self._kind: str | None = None

    def write(self, chunks: Sequence[Chunk]) -> bytes:
        """Return the events that may go out."""
        out: list[bytes] = []
        if self._index < 0:
            self._index = 0
            zero = {"input_tokens": 0, "output_tokens": 0}
            out.append(_event("message_start", message={**self._head, "usage": zero}))
        for chunk in chunks:
            if not chunk.closing:
                for piece in self._pieces.feed(chunk.data):
                    out += self._events(piece)
        return b"".join(out)

    def last(self, tally: Tally) -> bytes:
        """Return the end: it waits for the record, and so does the end of the last block."""
        out = [event for piece in self._pieces.end() for event in self._events(piece)]
        out += self._close()
        out.append(_event("message_delta", delta=stop(self._pieces), usage=usage(tally)))
        out.append(_event("message_stop"))
        return b"".join(out)

    def broken(self, found: Fault) -> bytes:
        """Return the error as an event."""
        return b"event: error\ndata: %b\n\n" % error_body(found)

    def _events(self, piece: Piece) -> Iterator[bytes]:
        if not isinstance(piece, Arguments):
            opened = block(piece, self._head["id"])
            if isinstance(piece, CallBegin) or self._kind != opened["type"]:
                yield from self._close()
                self._kind = opened["type"]
                yield _event("content_block_start", index=self._index, content_block=opened)
        if not isinstance(piece, CallBegin):
            yield _event("content_block_delta", index=self._index, delta=_delta(piece))

    def _close(self) -> Iterator[bytes]:
        if self._kind is not None:
            yield _event("content_block_stop", index=self._index)
            self._index += 1
            self._kind = None


def _delta(piece: Thought | Text | Refusal | Arguments) -> dict[str, str]:
    if isinstance(piece, Thought):
        return {"type": "thinking_delta", "thinking": piece.text}
    if isinstance(piece, Arguments):
        return {"type": "input_json_delta", "partial_json": piece.text}
    return {"type": "text_delta", "text": piece.text}


def _event(kind: str, **fields: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), _encode({"type": kind, **fields}))


def error_body(found: Fault) -> bytes:
    """Write an error in Anthropic's envelope."""
    usual = "invalid_request_error" if found.status < 500 else "api_error"
    error = {
        "type": _ERRORS.get(found.status, usual),
        "message": found.problem.message,
        "code": found.code,
        "param": found.problem.param,
        "src": found.problem.src,
    }
    return _encode({"type": "error", "error": error, "request_id": found.problem.id})


FORM = Form(body=error_body, id_header="request-id")
