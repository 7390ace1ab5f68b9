"""Counting the tokens of a request: asked of the engine, which knows its template and tokenizer.

``/chat/completions/input_tokens`` is llama.cpp's route, and ours.
"""

from collections.abc import Callable

import msgspec

from freehold.gateway.wire.call import Call


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """How one API counts: ``read`` gives the call, ``object`` is what the answer says it is."""

    name: str
    read: Callable[[bytes], Call]
    object: str | None = "response.input_tokens"

    def write(self, tokens: int, *, estimated: bool = False) -> bytes:
        """Write the answer."""
        named = {"object": self.object} if self.object else {}
        said = {"estimated": True} if estimated else {}
        return msgspec.json.encode({**named, "input_tokens": tokens, **said})


class Counted(msgspec.Struct):
    """An engine's answer."""

    input_tokens: int


def count_of(call: Call) -> Call:
    """Return the call that only counts: it books no tokens, and does not stream."""
    return msgspec.structs.replace(
        call,
        path="/chat/completions/input_tokens",
        stream=False,
        streams=False,
        prompt=0,
        optional=True,
    )
