"""A Responses request: its own fields. What it says in ``input`` is read in ``items.py``."""

from typing import Annotated, Any, Literal

import msgspec

Mode = Literal["none", "auto", "required"]
Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]


class Tool(msgspec.Struct, tag_field="type", tag="function"):
    """A function of the client's. Tools that a provider runs have other types, and are refused."""

    name: Annotated[str, msgspec.Meta(min_length=1)]
    description: str | None = None
    parameters: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))
    strict: bool | None = None


class Named(msgspec.Struct, tag_field="type", tag="function"):
    """One function, by name."""

    name: str


class Allowed(msgspec.Struct, tag_field="type", tag="allowed_tools"):
    """Some of the functions."""

    tools: Annotated[list[Named], msgspec.Meta(min_length=1)]
    mode: Mode = "auto"


class Plain(msgspec.Struct, tag_field="type", tag="text"):
    """Text of no certain form."""


class JsonObject(msgspec.Struct, tag_field="type", tag="json_object"):
    """Any JSON object."""


class JsonSchema(msgspec.Struct, tag_field="type", tag="json_schema"):
    """JSON of a certain form."""

    name: str
    schema: msgspec.Raw
    description: str | None = None
    strict: bool | None = None


class TextConfig(msgspec.Struct):
    """``text``."""

    format: Plain | JsonObject | JsonSchema | None = None
    verbosity: str | None = None


class Reasoning(msgspec.Struct):
    """``reasoning``."""

    effort: str | None = None
    summary: str | None = None


class Request(msgspec.Struct):
    """The fields that are translated; others pass through to the engine."""

    model: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    input: str | list[msgspec.Raw] | None = None
    previous_response_id: str | None = None
    instructions: str | None = None
    include: list[str] | None = None
    tools: list[Tool] | None = None
    tool_choice: Mode | Named | Allowed | None = None
    metadata: dict[str, str] | None = None
    text: TextConfig | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    background: bool | None = None
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_tool_calls: Annotated[int, msgspec.Meta(ge=1)] | None = None
    reasoning: Reasoning | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    truncation: Literal["auto", "disabled"] | None = None
    store: bool | None = None
    service_tier: str | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None

    @property
    def wants_logprobs(self) -> bool:
        """Say whether token probabilities were asked for."""
        return bool(self.top_logprobs) or LOGPROBS in (self.include or ())


LOGPROBS = "message.output_text.logprobs"
INCLUDABLE = frozenset({LOGPROBS, "reasoning.encrypted_content"})
"""Reasoning always comes along, in the open, so nothing encrypted is needed to send it back."""

KNOWN = frozenset(field.name for field in msgspec.structs.fields(Request))
REFUSED = ("conversation", "prompt", "context_management")
"""Fields that ask for what only OpenAI runs."""
