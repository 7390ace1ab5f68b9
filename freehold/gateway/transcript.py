"""What a client has been sent of an answer, decoded only when its engine has failed."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from freehold.gateway.wire.dialect import Chunk

Place = tuple[object, ...]
"""Where a piece of text goes: the choice, then the field, or the tool call and its field."""
Texts = dict[Place, str]

HEAD = ("id", "created", "model", "system_fingerprint", "object")
"""Fields that are the same in every event of an answer."""


class Transcript(msgspec.Struct, frozen=True):
    """``head`` is what all its events share, ``texts`` what they added up to, ``tokens`` how many
    of them carried text; ``plain`` says that all text is the content of its only choice."""

    head: dict[str, Any]
    texts: Texts
    tokens: int
    plain: bool

    @property
    def text(self) -> str:
        """The text of a plain answer."""
        return "".join(self.texts.values())


def transcribe(chunks: Sequence[Chunk]) -> Transcript:
    """Put together what these chunks said."""
    head: dict[str, Any] = {}
    texts: Texts = {}
    tokens, plain = 0, True
    for chunk in chunks:
        event = chunk.decoded()
        head = head or {name: event[name] for name in HEAD if name in event}
        spoken = False
        for choice in event.get("choices") or ():
            if not shaped(choice):
                plain = False
                continue
            plain = plain and not choice.get("logprobs")
            for place, text in pieces(choice):
                texts[place] = texts.get(place, "") + text
                spoken = True
        tokens += spoken
    plain = plain and all(place in ((0, "content"), (0, "text")) for place in texts)
    return Transcript(head, texts, tokens, plain and len(texts) == 1)


def shaped(choice: dict[str, Any]) -> bool:
    """Say whether a part of a choice is built as it should be; else it can only be passed on."""
    delta = choice.get("delta")
    if delta is None:
        return True
    calls = (delta.get("tool_calls") or []) if isinstance(delta, dict) else None
    return isinstance(calls, list) and all(
        isinstance(call, dict)
        and isinstance(call.get("index", 0), int)
        and isinstance(call.get("function") or {}, dict)
        for call in calls
    )


def pieces(choice: dict[str, Any]) -> Iterator[tuple[Place, str]]:
    """Yield the text in a part of a choice, piece by piece; ids of tool calls are none: they are
    drawn by lot."""
    index = choice.get("index", 0)
    if isinstance(choice.get("text"), str) and choice["text"]:
        yield (index, "text"), choice["text"]
    for name, value in (choice.get("delta") or {}).items():
        if name == "tool_calls":
            for call in value or ():
                function = call.get("function") or {}
                for key in ("name", "arguments"):
                    if isinstance(function.get(key), str) and function[key]:
                        yield (index, name, call.get("index", 0), key), function[key]
        elif name != "role" and isinstance(value, str) and value:
            yield (index, name), value
