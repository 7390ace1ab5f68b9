"""What the data plane answers, as types: for the description of what is served, and its checks.

Whole answers only; of a stream the events are those of the API it follows. Chat, completions and
embeddings are passed on as the engine wrote them, so they promise what is checked on the way, and
say of what types the rest is. Fields that are not named here may be there too.
"""

from typing import Any

from freehold.gateway.admin.answers.chat import (
    ChatAnswer,
    CompletionAnswer,
    EmbeddingAnswer,
    ModelAnswer,
    ModelsAnswer,
    RerankAnswer,
    TokenCount,
)
from freehold.gateway.admin.answers.inference import (
    Healthy,
    InferenceAnswer,
    InferenceHealth,
    InferenceModel,
    InferenceReady,
    InferenceServer,
)
from freehold.gateway.admin.answers.messages import (
    MessageAnswer,
)
from freehold.gateway.admin.answers.responses import (
    DeletedResponse,
    InputItems,
    ResponseAnswer,
)

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
