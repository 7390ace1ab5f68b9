"""What the data plane answers, as types: for the description of what is served, and its checks.

Whole answers only; of a stream the events are those of the API it follows. Chat, completions and
embeddings are passed on as the engine wrote them, so they promise what is checked on the way, and
say of what types the rest is. Fields that are not named here may be there too.
"""

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


class TokenCount(msgspec.Struct, kw_only=True):
    """How many tokens a request has; ``estimated`` where the engine cannot count."""

    input_tokens: Tokens
    object: str = ""
    estimated: bool = False


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


class InferenceServer(msgspec.Struct):
    """This server."""

    name: Literal["freehold"]
    version: str
    extensions: list[str]


class TensorAbout(msgspec.Struct):
    """An input or output; -1 is any number."""

    name: str
    datatype: str
    shape: list[int]


class InferenceModel(msgspec.Struct, kw_only=True):
    """A deployment's inputs and outputs."""

    name: str
    platform: str
    inputs: list[TensorAbout]
    outputs: list[TensorAbout]
    versions: list[str] | msgspec.UnsetType = msgspec.UNSET


class InferenceReady(msgspec.Struct):
    """Whether a deployment can be asked."""

    name: str
    ready: bool


class InferredTensor(msgspec.Struct):
    """An output, row by row."""

    name: str
    datatype: str
    shape: list[int]
    data: list[float]


class InferenceAnswer(msgspec.Struct, kw_only=True):
    """What was inferred."""

    model_name: str
    id: str
    outputs: Annotated[list[InferredTensor], Some]
    model_version: str | msgspec.UnsetType = msgspec.UNSET


class Healthy(msgspec.Struct):
    """How this gateway does; ``loading`` names what is waited for."""

    status: Literal["ok", "starting"]
    loading: list[str] = []


class InferenceHealth(msgspec.Struct):
    """The same in the words of the Open Inference Protocol."""

    live: Literal[True]
    ready: bool = False


_OIP = "/v2/models/{name}"
_OF_VERSION = _OIP + "/versions/{version}"
GIVES: dict[tuple[str, str], Any] = {
    ("post", "/v1/chat/completions"): ChatAnswer,
    ("post", "/v1/chat/completions/input_tokens"): TokenCount,
    ("post", "/v1/completions"): CompletionAnswer,
    ("post", "/v1/embeddings"): EmbeddingAnswer,
    ("post", "/v1/rerank"): RerankAnswer,
    ("post", "/v1/messages"): MessageAnswer,
    ("post", "/v1/messages/count_tokens"): TokenCount,
    ("post", "/v1/responses"): ResponseAnswer,
    ("post", "/v1/responses/input_tokens"): TokenCount,
    ("get", "/v1/responses/{id}"): ResponseAnswer,
    ("delete", "/v1/responses/{id}"): DeletedResponse,
    ("get", "/v1/responses/{id}/input_items"): InputItems,
    ("get", "/v1/models"): ModelsAnswer,
    ("get", "/v1/models/{name}"): ModelAnswer,
    ("get", "/v2"): InferenceServer,
    ("get", _OIP): InferenceModel,
    ("get", f"{_OIP}/ready"): InferenceReady,
    ("post", f"{_OIP}/infer"): InferenceAnswer,
    ("get", _OF_VERSION): InferenceModel,
    ("get", f"{_OF_VERSION}/ready"): InferenceReady,
    ("post", f"{_OF_VERSION}/infer"): InferenceAnswer,
    ("get", "/healthz"): Healthy,
    ("get", "/readyz"): Healthy,
    ("get", "/v2/health/live"): InferenceHealth,
    ("get", "/v2/health/ready"): InferenceHealth,
}
"""Method and path to the type of a whole answer."""

STREAMS = frozenset(("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"))
"""Paths that answer in events too, where that is asked for."""

WAITS = frozenset(("/readyz", "/v2/health/ready", f"{_OIP}/ready", f"{_OF_VERSION}/ready"))
"""Paths that say 503 in the same words as 200 while what is asked about is not ready."""
