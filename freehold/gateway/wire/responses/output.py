"""The output items of a response in the making, and the events that tell of them."""

from collections.abc import Iterator
from typing import Any

import msgspec

from freehold.gateway.wire.pieces import Arguments, CallBegin, Piece, Refusal, Text, Thought

Event = dict[str, Any]


class Output:
    """Feed it pieces: ``items`` are those that are over, and events come back."""

    def __init__(self, response_id: str) -> None:
        self.items: list[dict[str, Any]] = []
        self._key = response_id.removeprefix("resp_")
        self._item: dict[str, Any] | None = None
        self._part: dict[str, Any] | None = None
        self._texts: list[str] = []
        self._logprobs: list[msgspec.Raw] = []

    def take(self, piece: Piece) -> Iterator[Event]:
        """Take one piece."""
        if isinstance(piece, CallBegin):
            yield from self.close()
            yield from self._begin(self._call(piece))
        elif isinstance(piece, Arguments):
            self._texts.append(piece.text)
            yield self._event("function_call_arguments.delta", delta=piece.text)
        else:
            yield from self._speak(piece)

    def close(self, status: str = "completed") -> Iterator[Event]:
        """End the item under way."""
        item = self._item
        if item is None:
            return
        yield from self._end_part()
        if item["type"] == "function_call":
            item["arguments"] = "".join(self._texts)
            yield self._event("function_call_arguments.done", arguments=item["arguments"])
        if "status" in item:
            item["status"] = status
        yield {"type": "response.output_item.done", "output_index": self._index, "item": item}
        self.items.append(item)
        self._item, self._texts = None, []

    @property
    def _index(self) -> int:
        return len(self.items)

    def _call(self, piece: CallBegin) -> dict[str, Any]:
        return {
            "type": "function_call",
            "id": f"fc_{self._key}_{self._index}",
            "call_id": piece.id or f"call_{self._key}_{piece.index}",
            "name": piece.name,
            "arguments": "",
            "status": "in_progress",
        }

    def _begin(self, item: dict[str, Any]) -> Iterator[Event]:
        self._item = item
        shown = {name: list(v) if isinstance(v, list) else v for name, v in item.items()}
        yield {"type": "response.output_item.added", "output_index": self._index, "item": shown}

    def _speak(self, piece: Thought | Text | Refusal) -> Iterator[Event]:
        kind = "reasoning" if isinstance(piece, Thought) else "message"
        if self._item is None or self._item["type"] != kind:
            yield from self.close()
            yield from self._begin(self._spoken(kind))
        part = _part(piece)
        if self._part is None or self._part["type"] != part["type"]:
            yield from self._end_part()
            yield from self._begin_part(part)
        self._texts.append(piece.text)
        if isinstance(piece, Text):
            self._logprobs += piece.logprobs
            extra = {"logprobs": list(piece.logprobs)}
        else:
            extra = {}
        yield self._part_event(f"{_name(part)}.delta", delta=piece.text, **extra)

    def _spoken(self, kind: str) -> dict[str, Any]:
        if kind == "reasoning":
            name = f"rs_{self._key}_{self._index}"
            return {"type": "reasoning", "id": name, "summary": [], "content": []}
        return {
            "type": "message",
            "id": f"msg_{self._key}_{self._index}",
            "status": "in_progress",
            "role": "assistant",
            "content": [],
        }

    def _begin_part(self, part: dict[str, Any]) -> Iterator[Event]:
        self._part = part
        yield self._part_event("content_part.added", part=dict(part))

    def _end_part(self) -> Iterator[Event]:
        part, item = self._part, self._item
        if part is None or item is None:
            return
        text, key = "".join(self._texts), "refusal" if part["type"] == "refusal" else "text"
        part[key] = text
        extra = {}
        if part["type"] == "output_text":
            part["logprobs"] = self._logprobs
            extra = {"logprobs": self._logprobs}
        yield self._part_event(f"{_name(part)}.done", **{key: text}, **extra)
        yield self._part_event("content_part.done", part=part)
        item["content"].append(part)
        self._part, self._texts, self._logprobs = None, [], []

    def _event(self, name: str, **fields: object) -> Event:
        assert self._item is not None, "an event is about an item"
        about = {"item_id": self._item["id"], "output_index": self._index}
        return {"type": f"response.{name}", **about, **fields}

    def _part_event(self, name: str, **fields: object) -> Event:
        assert self._item is not None, "a part belongs to an item"
        return self._event(name, content_index=len(self._item["content"]), **fields)


def _part(piece: Thought | Text | Refusal) -> dict[str, Any]:
    if isinstance(piece, Thought):
        return {"type": "reasoning_text", "text": ""}
    if isinstance(piece, Refusal):
        return {"type": "refusal", "refusal": ""}
    return {"type": "output_text", "text": "", "annotations": [], "logprobs": []}


def _name(part: dict[str, Any]) -> str:
    """Return the word for a part in the names of its events (Open Responses, 2026-04-24)."""
    return "reasoning" if part["type"] == "reasoning_text" else str(part["type"])
