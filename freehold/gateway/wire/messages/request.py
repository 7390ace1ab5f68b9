"""A Messages request, as Anthropic's clients send it. Unknown kinds of blocks are refused."""

from typing import Annotated, Any, Literal

import msgspec

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class Base64(msgspec.Struct, tag_field="type", tag="base64"):
    """Bytes in the request itself."""

    media_type: str
    data: str


class Url(msgspec.Struct, tag_field="type", tag="url"):
    """Bytes that the engine fetches."""

    url: str


class Plain(msgspec.Struct, tag_field="type", tag="text"):
    """A document that is text."""

    data: str
    media_type: str = "text/plain"


class Switch(msgspec.Struct):
    """Something that is on or off."""

    enabled: bool | None = None


class Text(msgspec.Struct, tag_field="type", tag="text"):
    """A text."""

    text: str


class Image(msgspec.Struct, tag_field="type", tag="image"):
    """An image."""

    source: Base64 | Url


class Document(msgspec.Struct, tag_field="type", tag="document"):
    """A document."""

    source: Base64 | Plain
    title: str | None = None
    context: str | None = None
    citations: Switch | None = None


class Thinking(msgspec.Struct, tag_field="type", tag="thinking"):
    """Reasoning of an earlier turn."""

    thinking: str
    signature: str | None = None


class ToolUse(msgspec.Struct, tag_field="type", tag="tool_use"):
    """A tool call of an earlier turn."""

    id: str
    name: str
    input: msgspec.Raw


class ToolResult(msgspec.Struct, tag_field="type", tag="tool_result"):
    """What a tool answered."""

    tool_use_id: str
    content: str | list[Text | Image | Document] | None = None
    is_error: bool | None = None


Block = Text | Image | Document | Thinking | ToolUse | ToolResult


class Turn(msgspec.Struct):
    """One message."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class Tool(msgspec.Struct):
    """A tool of the client's. Anthropic's own tools have other types, and are refused."""

    name: str
    input_schema: msgspec.Raw
    description: str | None = None
    type: Literal["custom"] | None = None
    strict: bool | None = None


class ToolChoice(msgspec.Struct):
    """Which tools may be called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Reasoning(msgspec.Struct):
    """``thinking``: whether the model reasons, and for how many tokens."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None


class JsonSchema(msgspec.Struct, tag_field="type", tag="json_schema"):
    """The form that the answer must have."""

    schema: msgspec.Raw


class Output(msgspec.Struct):
    """``output_config``."""

    effort: str | None = None
    format: JsonSchema | None = None


class Metadata(msgspec.Struct):
    """``metadata``."""

    user_id: str | None = None


class Edit(msgspec.Struct):
    """Something to leave out of a long conversation."""

    type: str
    keep: str | dict[str, Any] | None = None


class Context(msgspec.Struct):
    """``context_management``."""

    edits: list[Edit] | None = None


class Request(msgspec.Struct):
    """The fields that are translated; others pass through to the engine."""

    model: Name
    messages: Annotated[list[Turn], msgspec.Meta(min_length=1)]
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    system: str | list[Text] | None = None
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, msgspec.Meta(ge=0)] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Reasoning | None = None
    output_config: Output | None = None
    output_format: JsonSchema | None = None
    metadata: Metadata | None = None
    service_tier: str | None = None
    context_management: Context | None = None


KNOWN = frozenset(field.name for field in msgspec.structs.fields(Request))
REFUSED = ("container", "mcp_servers")
"""Fields that ask for what only Anthropic runs."""
