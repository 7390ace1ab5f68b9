"""Answers as Anthropic's Messages API gives them."""

from typing import Annotated, Any, Literal

import msgspec

from freehold.gateway.admin.answers.chat import Tokens


class TextBlock(msgspec.Struct, tag_field="type", tag="text"):
    """A text."""

    text: str


class ThinkingBlock(msgspec.Struct, tag_field="type", tag="thinking"):
    """What the model thought first."""

    thinking: str
    signature: str


class ToolUseBlock(msgspec.Struct, tag_field="type", tag="tool_use"):
    """A tool that the model wants used."""

    id: str
    name: str
    input: dict[str, Any]


class MessageUsage(msgspec.Struct, kw_only=True):
    """Tokens in Anthropic's words: what came from the cache counts apart."""

    input_tokens: Tokens
    output_tokens: Tokens
    cache_creation_input_tokens: Tokens
    cache_read_input_tokens: Tokens
    estimated: bool = False


class MessageAnswer(msgspec.Struct, kw_only=True):
    """A message."""

    id: Annotated[str, msgspec.Meta(pattern="^msg_")]
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[TextBlock | ThinkingBlock | ToolUseBlock]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"]
    stop_sequence: str | None
    usage: MessageUsage
