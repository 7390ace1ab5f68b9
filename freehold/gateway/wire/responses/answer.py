"""An engine's chat answer as a response: the resource, and the events of a stream."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from freehold.gateway.faults import Fault
from freehold.gateway.wire.dialect import Chunk, Reply
from freehold.gateway.wire.pieces import Pieces
from freehold.gateway.wire.responses.output import Event, Output
from freehold.gateway.wire.responses.request import Request
from freehold.gateway.wire.usage import Counts, Tally

_encode = msgspec.json.encode
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def resource(request: Request, response_id: str, created: int, *, store: bool) -> dict[str, Any]:
    """Return a response that has only begun, with everything the request settled."""
    text, reasoning = request.text, request.reasoning
    verbosity = {"verbosity": text.verbosity} if text and text.verbosity else {}
    return {
        "id": response_id,
        "object": "response",
        "created_at": created,
        "completed_at": None,
        "status": "in_progress",
        "incomplete_details": None,
        "error": None,
        "model": request.model,
        "previous_response_id": request.previous_response_id,
        "instructions": request.instructions,
        "output": [],
        "tools": request.tools or [],
        "tool_choice": request.tool_choice or "auto",
        "truncation": "disabled",
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "text": {"format": (text and text.format) or {"type": "text"}, **verbosity},
        "top_p": _or(request.top_p, 1.0),
        "presence_penalty": _or(request.presence_penalty, 0.0),
        "frequency_penalty": _or(request.frequency_penalty, 0.0),
        "top_logprobs": request.top_logprobs or 0,
        "temperature": _or(request.temperature, 1.0),
        "reasoning": {
            "effort": reasoning.effort if reasoning else None,
            "summary": reasoning.summary if reasoning else None,
        },
        "usage": None,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "store": store,
        "background": False,
        "service_tier": "default",
        "metadata": request.metadata or {},
        "safety_identifier": request.safety_identifier,
        "prompt_cache_key": request.prompt_cache_key,
    }


def _or(value: float | None, usual: float) -> float:
    return usual if value is None else value


def usage(counts: Counts) -> dict[str, object]:
    """Return the counts in this API's words."""
    return {
        "input_tokens": counts.prompt,
        "input_tokens_details": {"cached_tokens": counts.cached},
        "output_tokens": counts.completion,
        "output_tokens_details": {"reasoning_tokens": counts.reasoning},
        "total_tokens": counts.prompt + counts.completion,
        **({"estimated": True} if counts.estimated else {}),
    }


class ResponseWriter:
    """Makes one response. ``final`` is the resource once it is over.

    ``clock`` gives epoch seconds.
    """

    def __init__(self, begun: dict[str, Any], clock: Callable[[], float]) -> None:
        self.final: dict[str, Any] | None = None
        self._begun = begun
        self._clock = clock
        self._pieces = Pieces()
        self._output = Output(begun["id"])
        self._number = 0

    def write(self, chunks: Sequence[Chunk]) -> bytes:
        """Return the events that may go out."""
        out: list[bytes] = []
        if not self._number:
            out.append(self._tell("created", self._begun))
            out.append(self._tell("in_progress", self._begun))
        for chunk in chunks:
            if not chunk.closing:
                for piece in self._pieces.feed(chunk.data):
                    out += self._events(self._output.take(piece))
        return b"".join(out)

    def last(self, tally: Tally) -> bytes:
        """Return the end: it waits for the record, and so does the end of the last item."""
        out = self._finish(tally)
        assert self.final is not None, "it has just been finished"
        out.append(self._tell(self.final["status"], self.final))
        return b"".join([*out, b"data: [DONE]\n\n"])

    def broken(self, found: Fault) -> bytes:
        """Return the failure as an event, with what there was until then."""
        list(self._output.close("incomplete"))
        error = {"code": found.code, "message": found.problem.message}
        failed = {
            **self._begun,
            "status": "failed",
            "error": error,
            "output": self._output.items,
        }
        self.final = None
        return self._tell("failed", failed) + b"data: [DONE]\n\n"

    def render(self, reply: Reply) -> bytes:
        """Write a whole answer."""
        for piece in self._pieces.feed(reply.data):
            list(self._output.take(piece))
        self._finish(reply.counts)
        return _encode(self.final)

    def _finish(self, counts: Counts) -> list[bytes]:
        out = []
        for piece in self._pieces.end():
            out += self._events(self._output.take(piece))
        reason = _INCOMPLETE.get(self._pieces.finish or "stop")
        status = "incomplete" if reason else "completed"
        out += self._events(self._output.close(status))
        self.final = {
            **self._begun,
            "completed_at": None if reason else int(self._clock()),
            "status": status,
            "incomplete_details": {"reason": reason} if reason else None,
            "output": self._output.items,
            "usage": usage(counts),
        }
        return out

    def _tell(self, what: str, response: dict[str, Any]) -> bytes:
        return self._one({"type": f"response.{what}", "response": response})

    def _events(self, events: Iterable[Event]) -> list[bytes]:
        return [self._one(event) for event in events]

    def _one(self, event: Event) -> bytes:
        kind = event.pop("type")
        numbered = {"type": kind, "sequence_number": self._number, **event}
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), _encode(numbered))
