"""The writer of the OpenAI dialects: an engine's events go out as they came in."""

from collections.abc import Sequence

import msgspec

from freehold.gateway.faults import Fault
from freehold.gateway.wire.call import Call
from freehold.gateway.wire.dialect import Chunk
from freehold.gateway.wire.usage import Tally

_encode = msgspec.json.encode


class EventWriter:
    """Lets events through untouched, but holds the one that finishes the last choice back.

    It goes out with the usage once the record is durable.
    """

    def __init__(self, call: Call, _request_id: str) -> None:
        self._wants_usage = call.wants_usage
        self._held: Chunk | None = None
        self._closing: Chunk | None = None

    def write(self, chunks: Sequence[Chunk]) -> bytes:
        """Return the events that may go out."""
        out: list[bytes] = []
        for chunk in chunks:
            if chunk.closing:
                self._closing = chunk
                continue
            if self._held is not None:
                out.append(self._held.data)
                self._held = None
            if chunk.finished:
                self._held = chunk
            else:
                out.append(chunk.data)
        return _events(out)

    def last(self, tally: Tally) -> bytes:
        """Return the finishing event, the usage where the client looks for it, and ``[DONE]``."""
        assert self._held is not None, "a stream that did not finish has failed before"
        held, usage = self._held.decoded(), tally.document()
        closing = self._closing.decoded() if self._closing is not None else {}
        if not self._wants_usage:
            merged = {**held, **closing, "choices": held["choices"], "usage": usage}
            return _events([_encode(merged), b"[DONE]"])
        last = {**(closing or held), "choices": [], "usage": usage}
        return _events([_encode(held), _encode(last), b"[DONE]"])

    def broken(self, found: Fault) -> bytes:
        """Return the error as an event."""
        return _events([found.body])


def _events(data: Sequence[bytes]) -> bytes:
    return b"".join([b"data: %b\n\n" % each for each in data])
