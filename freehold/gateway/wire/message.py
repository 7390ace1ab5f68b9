"""Chat messages, as other dialects are translated into them."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from freehold.errors import Invalid
from freehold.gateway.wire.call import Fields

Message = dict[str, Any]
Part = dict[str, Any]

_encode = msgspec.json.encode


def text_part(text: str) -> Part:
    """Return a part of text."""
    return {"type": "text", "text": text}


def image_part(url: str, detail: str | None = None) -> Part:
    """Return an image; ``url`` may be a data URL."""
    return {
        "type": "image_url",
        "image_url": {"url": url, **({"detail": detail} if detail else {})},
    }


def content_of(parts: list[Part]) -> str | list[Part]:
    """Return parts as one text where that is all they are: every engine takes that."""
    if all(part["type"] == "text" for part in parts):
        return "\n\n".join(part["text"] for part in parts)
    return parts


def tool_call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    """Return a tool call of an assistant's message."""
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def tool_results(
    results: Iterable[tuple[str, list[Part]]],
) -> tuple[list[Message], list[Part]]:
    """Return tool messages for (call id, parts), and what is no text: a user must say that."""
    messages: list[Message] = []
    other: list[Part] = []
    for call_id, parts in results:
        text = content_of([part for part in parts if part["type"] == "text"])
        messages.append({"role": "tool", "tool_call_id": call_id, "content": text})
        other += [part for part in parts if part["type"] != "text"]
    return messages, other


def with_system(system: Iterable[str], messages: list[Message]) -> list[Message]:
    """Put system texts in front, as one message with those that stand there: templates take one."""
    texts = [text for text in system if text]
    start = 0
    while start < len(messages) and messages[start]["role"] == "system":
        texts.append(messages[start]["content"])
        start += 1
    head: list[Message] = [{"role": "system", "content": "\n\n".join(texts)}] if texts else []
    return head + messages[start:]


def fields_of(values: Mapping[str, object], through: Fields) -> Fields:
    """Return a chat request's fields: what is set of ``values``, over what passes through."""
    made = {
        name: value if isinstance(value, msgspec.Raw) else msgspec.Raw(_encode(value))
        for name, value in values.items()
        if value is not None
    }
    return {**through, **made}


def cannot(param: str, why: str) -> Invalid:
    """Return the refusal of a field that no engine could be asked for."""
    return Invalid("invalid.unsupported", f"{param}: {why}", param=param)
