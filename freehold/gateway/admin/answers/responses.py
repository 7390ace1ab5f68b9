"""Answers as Open Responses gives them."""

from typing import Annotated, Any, Literal

import msgspec

from freehold.gateway.admin.answers.chat import PromptTokens, Tokens, WrittenTokens


class Reason(msgspec.Struct):
    """Why a response ended early."""

    reason: Literal["max_output_tokens", "content_filter"]


class ResponseUsage(msgspec.Struct, kw_only=True):
    """Tokens in the words of the Responses API."""

    input_tokens: Tokens
    input_tokens_details: PromptTokens
    output_tokens: Tokens
    output_tokens_details: WrittenTokens
    total_tokens: Tokens
    estimated: bool = False


class SaidText(msgspec.Struct, tag_field="type", tag="output_text"):
    """A text of a message."""

    text: str
    annotations: list[dict[str, Any]]
    logprobs: list[dict[str, Any]]


class SaidRefusal(msgspec.Struct, tag_field="type", tag="refusal"):
    """A refusal."""

    refusal: str


class SaidMessage(msgspec.Struct, tag_field="type", tag="message"):
    """A message of a response."""

    id: str
    status: Literal["completed", "incomplete"]
    role: Literal["assistant"]
    content: list[SaidText | SaidRefusal]


class Reasoned(msgspec.Struct, tag_field="type", tag="reasoning"):
    """What the model thought first."""

    id: str
    summary: list[dict[str, Any]]
    content: list[dict[str, Any]]


class WantedCall(msgspec.Struct, tag_field="type", tag="function_call"):
    """A function that the model wants called."""

    id: str
    call_id: str
    name: str
    arguments: str
    status: Literal["completed", "incomplete"]


class ResponseAnswer(msgspec.Struct, kw_only=True):
    """A response, with everything that its request settled."""

    id: Annotated[str, msgspec.Meta(pattern="^resp_")]
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["completed", "incomplete"]
    incomplete_details: Reason | None
    error: None
    model: str
    previous_response_id: str | None
    instructions: str | None
    output: list[SaidMessage | Reasoned | WantedCall]
    tools: list[dict[str, Any]]
    tool_choice: str | dict[str, Any]
    truncation: Literal["disabled"]
    parallel_tool_calls: bool
    text: dict[str, Any]
    top_p: float
    presence_penalty: float
    frequency_penalty: float
    top_logprobs: int
    temperature: float
    reasoning: dict[str, Any]
    usage: ResponseUsage
    max_output_tokens: int | None
    max_tool_calls: int | None
    store: bool
    background: Literal[False]
    service_tier: str
    metadata: dict[str, Any]
    safety_identifier: str | None
    prompt_cache_key: str | None


class DeletedResponse(msgspec.Struct):
    """A response that is no more."""

    id: str
    object: Literal["response"]
    deleted: Literal[True]


class InputItem(msgspec.Struct):
    """Something that a response answered; its other fields depend on the type."""

    id: str
    type: str


class InputItems(msgspec.Struct):
    """A page of what a response answered."""

    object: Literal["list"]
    data: list[InputItem]
    first_id: str | None
    last_id: str | None
    has_more: bool
