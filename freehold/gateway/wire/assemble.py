"""Put the events of a stream together into the answer that does not stream.

Engines that notice a lost client only while they stream are always asked to stream; for a client
that did not ask for it, this makes the one document it expects.
"""

from typing import Any

import msgspec

from freehold.errors import EngineLost
from freehold.gateway.faults import NO_JSON

_TEXT = ("content", "reasoning_content", "refusal", "text")


class Assembly:
    """Feed it decoded events; ``document`` is the whole answer, without its usage."""

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}

    def feed(self, event: dict[str, Any]) -> None:
        """Take one event; ``EngineLost`` when it is of no shape that could be put together."""
        for name, value in event.items():
            if name not in ("choices", "usage"):
                self._head[name] = value
        try:
            for part in event.get("choices") or ():
                self._take(part)
        except (AttributeError, TypeError) as error:
            raise _shapeless() from error

    def document(self) -> dict[str, Any]:
        """Return the answer; ``EngineLost`` when a choice never finished."""
        choices = [self._choices[index] for index in sorted(self._choices)]
        if not choices or any(choice.get("finish_reason") is None for choice in choices):
            raise EngineLost(
                "unavailable.engine_cut", "the engine's answer ended too early: try again"
            )
        for choice in choices:
            calls = choice.get("message", {}).get("tool_calls")
            if calls is not None:
                choice["message"]["tool_calls"] = [calls[index] for index in _order(calls)]
        kind = str(self._head.get("object", "")).removesuffix(".chunk")
        return {**self._head, "object": kind, "choices": choices}

    def _take(self, part: dict[str, Any]) -> None:
        index = part.get("index", 0)
        choice = self._choices.setdefault(index, {"index": index, "finish_reason": None})
        if part.get("finish_reason") is not None:
            choice["finish_reason"] = part["finish_reason"]
        if "delta" in part:
            _merge_delta(choice.setdefault("message", {"role": "assistant"}), part["delta"] or {})
        elif "text" in part:
            choice["text"] = choice.get("text", "") + (part["text"] or "")
        if isinstance(part.get("logprobs"), dict):
            _merge_logprobs(choice, part["logprobs"])
        elif "logprobs" in part:
            choice.setdefault("logprobs", None)


def _order(calls: dict[Any, Any]) -> list[Any]:
    try:
        return sorted(calls)
    except TypeError as error:
        raise _shapeless() from error


def _merge_delta(message: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, value in delta.items():
        if name == "tool_calls":
            calls = message.setdefault("tool_calls", {})
            for call in value or ():
                _merge_call(calls, call)
        elif name in _TEXT and isinstance(value, str) and isinstance(message.get(name), str):
            message[name] += value
        elif value is not None or name not in message:
            message[name] = value


def _merge_call(calls: dict[int, dict[str, Any]], part: dict[str, Any]) -> None:
    call = calls.setdefault(part.get("index", 0), {})
    for name, value in part.items():
        if name == "function" and isinstance(value, dict):
            function = call.setdefault("function", {})
            for key, text in value.items():
                grows = key == "arguments" and isinstance(text, str)
                function[key] = function.get(key, "") + text if grows else text
        elif name != "index":
            call[name] = value


def _merge_logprobs(choice: dict[str, Any], logprobs: dict[str, Any]) -> None:
    merged = choice.get("logprobs") or {}
    for name, value in logprobs.items():
        merged[name] = merged.get(name, []) + value if isinstance(value, list) else value
    choice["logprobs"] = merged


def decode_event(data: bytes) -> dict[str, Any]:
    """Decode one event; ``EngineLost`` when it is no JSON object."""
    try:
        event = msgspec.json.decode(data)
    except NO_JSON as error:
        raise EngineLost(
            "unavailable.engine_protocol", "the engine sent an event that is not JSON"
        ) from error
    if not isinstance(event, dict):
        raise _shapeless()
    return event


def _shapeless() -> EngineLost:
    return EngineLost("unavailable.engine_protocol", "the engine sent an event of no shape")
