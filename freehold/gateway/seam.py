"""Join what another replica says to what the client has already, so that no seam shows. Pure."""

from typing import Any

import msgspec

from freehold.errors import EngineLost
from freehold.gateway.transcript import HEAD, Place, Texts, Transcript, pieces, shaped
from freehold.gateway.wire.dialect import Chunk


class Mismatch(EngineLost):
    """The replica says something else than the client has been told."""


class Seam:
    """Feed it the second replica's chunks; what comes out goes on where the client is.

    ``skip`` is the text it will say again and the client has: none where it only goes on.
    """

    def __init__(self, said: Transcript, *, skip: bool) -> None:
        self._head = said.head
        self._left: Texts = dict(said.texts) if skip else {}

    def join(self, chunk: Chunk) -> Chunk | None:
        """Return what of a chunk is new to the client, None for nothing."""
        event = {**chunk.decoded()}
        if chunk.closing:
            return Chunk(b"", self._signed(event), closing=True)
        choices = [self._rest(choice) for choice in event.get("choices") or ()]
        event["choices"] = kept = [choice for choice in choices if choice is not None]
        if not kept:
            return None
        event = self._signed(event)
        return Chunk(msgspec.json.encode(event), event, finished=chunk.finished)

    def _signed(self, event: dict[str, Any]) -> dict[str, Any]:
        return {**{name: v for name, v in event.items() if name not in HEAD}, **self._head}

    def _rest(self, choice: dict[str, Any]) -> dict[str, Any] | None:
        """Return a choice without what was said before, None if nothing else is in it."""
        if not shaped(choice):
            raise differs()
        index = choice.get("index", 0)
        skipped = {place: text for place, text in pieces(choice) if self._left.get(place)}
        cut = {place: self._skip(place, text) for place, text in skipped.items()}
        if choice.get("finish_reason") is not None:
            if any(text for place, text in self._left.items() if place[0] == index):
                raise differs()
        elif not any(cut.get(place, text) for place, text in pieces(choice)):
            return None
        if any(cut.values()) and choice.get("logprobs"):
            raise differs()  # they belong to a token of which the client has a part
        return _without(choice, cut)

    def _skip(self, place: Place, text: str) -> str:
        left = self._left[place]
        if left.startswith(text):
            self._left[place] = left[len(text) :]
            return ""
        if text.startswith(left):
            self._left[place] = ""
            return text[len(left) :]
        raise differs()


def _without(choice: dict[str, Any], cut: Texts) -> dict[str, Any]:
    index = choice.get("index", 0)
    fresh = {**choice}
    if (index, "text") in cut:
        fresh["text"] = cut[index, "text"]
    if choice.get("delta") is not None:
        delta = {name: cut.get((index, name), value) for name, value in choice["delta"].items()}
        delta.pop("role", None)
        if delta.get("content") is None:
            delta.pop("content", None)
        if delta.get("tool_calls"):
            delta["tool_calls"] = [_call(index, call, cut) for call in delta["tool_calls"]]
        fresh["delta"] = delta
    return fresh


def _call(index: object, call: dict[str, Any], cut: Texts) -> dict[str, Any]:
    number = call.get("index", 0)
    function = {
        name: cut.get((index, "tool_calls", number, name), value)
        for name, value in (call.get("function") or {}).items()
    }
    if not any((index, "tool_calls", number, name) in cut for name in function):
        return call
    # Its id and name are out already; all that may follow are more arguments.
    return {"index": number, "function": {"arguments": function.get("arguments", "")}}


def differs() -> Mismatch:
    """Return the error for a replica that does not go on where the client is."""
    return Mismatch(
        "unavailable.engine_differs",
        "the engine broke off, and no other replica goes on where it stopped: ask again",
        retry_after=1,
    )
