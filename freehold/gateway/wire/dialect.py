"""A dialect: how a request of one API is read, and how an engine's answer is written for it.

Engines speak chat completions (and completions, embeddings): a ``Call`` is what they are asked, a
``Chunk`` an event of their stream, a ``Reply`` their whole answer. A dialect translates at the
border, so every dialect works with every engine.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import msgspec

from freehold.gateway.faults import Fault
from freehold.gateway.wire.assemble import decode_event
from freehold.gateway.wire.call import Call
from freehold.gateway.wire.usage import Counts, Tally, read_counts


class Chunk(msgspec.Struct):
    """One event of an engine's stream, without its usage, which is counted already.

    ``data`` is the JSON as the engine sent it. ``event`` is the same decoded, where somebody had to
    look. ``finished`` says that it ends a choice, ``closing`` that it only carried the usage.
    """

    data: bytes
    event: dict[str, Any] | None = None
    finished: bool = False
    closing: bool = False

    def decoded(self) -> dict[str, Any]:
        """Return the event decoded."""
        if self.event is None:
            self.event = decode_event(self.data)
        return self.event


class Reply(msgspec.Struct, frozen=True):
    """An engine's whole answer: the JSON document, its usage included."""

    data: bytes

    @property
    def counts(self) -> Counts:
        """The token counts that the document tells."""
        return read_counts(self.data)

    def decoded(self) -> dict[str, Any]:
        """Return the document decoded."""
        found: dict[str, Any] = msgspec.json.decode(self.data)
        return found


class Writer(Protocol):
    """Writes one streamed answer. It holds the end back: no client can take half for a whole."""

    def write(self, chunks: Sequence[Chunk]) -> bytes:
        """Return the bytes that may go out now that these chunks have come; may be none."""
        ...

    def last(self, tally: Tally) -> bytes:
        """Return the end of the answer; called once, when the engine is through."""
        ...

    def broken(self, found: Fault) -> bytes:
        """Return the end of an answer that failed on its way, at whatever point."""
        ...


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """One API. ``read`` checks a body, ``writer`` streams, ``render`` writes a whole answer.

    ``recall`` puts in what was said before, where an API keeps that for its clients.
    """

    name: str
    read: Callable[[bytes], Call]
    writer: Callable[[Call, str], Writer]
    render: Callable[[Call, Reply, str], bytes]
    recall: Callable[[Call], Awaitable[Call]] | None = None


def untouched(_call: Call, reply: Reply, _request_id: str) -> bytes:
    """Write a whole answer as the engine wrote it."""
    return reply.data
