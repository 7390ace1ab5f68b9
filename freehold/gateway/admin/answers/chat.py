"""Answers as the OpenAI API gives them, reranking included: as engines wrote them, and checked."""

from typing import Annotated, Any, Literal

import msgspec

Tokens = Annotated[int, msgspec.Meta(ge=0)]
Some = msgspec.Meta(min_length=1)


class PromptTokens(msgspec.Struct):
    """Of the tokens read."""

    cached_tokens: Tokens | None = None


class WrittenTokens(msgspec.Struct):
    """Of the tokens written."""

    reasoning_tokens: Tokens | None = None


class TokenUsage(msgspec.Struct, kw_only=True):
    """Tokens read and written; ``estimated`` where the engine did not count them."""

    prompt_tokens: Tokens
    total_tokens: Tokens = 0
    completion_tokens: Tokens = 0
    prompt_tokens_details: PromptTokens | None = None
    completion_tokens_details: WrittenTokens | None = None
    estimated: bool = False


class CalledFunction(msgspec.Struct):
    """A function that the model wants called; ``arguments`` are JSON as it wrote them."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct, kw_only=True):
    """A call of a tool."""

    function: CalledFunction
    id: str = ""
    type: str = "function"


class ChatMessage(msgspec.Struct, kw_only=True):
    """What the model said."""

    role: str = "assistant"
    content: str | list[dict[str, Any]] | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None


class ChatChoice(msgspec.Struct, kw_only=True):
    """One answer."""

    message: ChatMessage
    finish_reason: str
    index: int = 0
    logprobs: dict[str, Any] | None = None


class ChatAnswer(msgspec.Struct, kw_only=True):
    """A chat completion."""

    choices: Annotated[list[ChatChoice], Some]
    usage: TokenUsage
    id: str = ""
    object: str = "chat.completion"
    created: float = 0
    model: str = ""


class CompletionChoice(msgspec.Struct, kw_only=True):
    """One continuation."""

    text: str
    finish_reason: str
    index: int = 0
    logprobs: dict[str, Any] | None = None


class CompletionAnswer(msgspec.Struct, kw_only=True):
    """A text completion."""

    choices: Annotated[list[CompletionChoice], Some]
    usage: TokenUsage
    id: str = ""
    object: str = "text_completion"
    created: float = 0
    model: str = ""


class Vector(msgspec.Struct, kw_only=True):
    """One text's vector, base64 of its floats where that was asked for."""

    embedding: list[float] | str
    index: int = 0
    object: str = "embedding"


class EmbeddingAnswer(msgspec.Struct, kw_only=True):
    """Vectors in the order of the texts."""

    data: Annotated[list[Vector], Some]
    usage: TokenUsage
    object: str = "list"
    model: str = ""


class RankedText(msgspec.Struct):
    """The document itself, where it shall come back."""

    text: str


class RankedDocument(msgspec.Struct, kw_only=True):
    """How relevant a document is; higher is more."""

    index: Annotated[int, msgspec.Meta(ge=0)]
    relevance_score: float
    document: RankedText | msgspec.UnsetType = msgspec.UNSET


class RerankAnswer(msgspec.Struct, kw_only=True):
    """Documents, most relevant first; ``method`` says whether by a reranker or by embeddings."""

    id: str
    object: Literal["list"]
    model: str
    method: Literal["reranker", "embedding"]
    results: list[RankedDocument]
    usage: TokenUsage


class TokenCount(msgspec.Struct, kw_only=True):
    """How many tokens a request has; ``estimated`` where the engine cannot count."""

    input_tokens: Tokens
    object: str = ""
    estimated: bool = False


class ModelMeta(msgspec.Struct, kw_only=True):
    """What a deployment runs, and how it stands."""

    model: str | None
    version: int | None
    digest: str | None
    state: str
    context: int | None
    task: str


class ModelAnswer(msgspec.Struct, kw_only=True):
    """A deployment, or ``auto``, as a model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    meta: ModelMeta | msgspec.UnsetType = msgspec.UNSET


class ModelsAnswer(msgspec.Struct):
    """All deployments."""

    object: Literal["list"]
    data: list[ModelAnswer]
