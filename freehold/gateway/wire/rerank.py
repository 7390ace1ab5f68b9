"""``POST /v1/rerank``, in the shape of Jina and Cohere.

A deployment that reranks is asked to. Any other is asked for embeddings, and documents are ordered
by how near they are to the query; the answer says which it was.
"""

from collections.abc import Callable, Sequence
from typing import Annotated

import msgspec

from freehold.errors import EngineLost
from freehold.gateway.wire.call import Call, Fields, read_fields
from freehold.gateway.wire.dialect import Dialect, Reply
from freehold.gateway.wire.events import EventWriter
from freehold.gateway.wire.message import fields_of
from freehold.gateway.wire.vectors import cosine, read_vectors


class Document(msgspec.Struct):
    """A document in the form that names its text."""

    text: str


class Request(msgspec.Struct):
    """The fields that are checked here; others pass through."""

    model: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    query: Annotated[str, msgspec.Meta(min_length=1)]
    documents: Annotated[list[str | Document], msgspec.Meta(min_length=1, max_length=1000)]
    top_n: Annotated[int, msgspec.Meta(ge=1)] | None = None
    return_documents: bool | None = None

    @property
    def texts(self) -> list[str]:
        """The documents' texts."""
        return [each if isinstance(each, str) else each.text for each in self.documents]


class Result(msgspec.Struct, frozen=True):
    """How relevant one document is; higher is more."""

    index: int
    relevance_score: float


class _Results(msgspec.Struct):
    results: list[Result]


KNOWN = frozenset(field.name for field in msgspec.structs.fields(Request))
_DECODER = msgspec.json.Decoder(Request)
_RESULTS = msgspec.json.Decoder(_Results)


class Ranking:
    """One request. ``reranks`` says whether the deployment of that name is a reranker."""

    def __init__(self, reranks: Callable[[str], bool]) -> None:
        self._reranks = reranks
        self._request: Request
        self._method = "embedding"
        self.dialect = Dialect(
            name="rerank", read=self._read, writer=EventWriter, render=self._render
        )

    def _read(self, body: bytes) -> Call:
        self._request, fields = read_fields(body, _DECODER)
        if self._reranks(self._request.model):
            self._method = "reranker"
        return call_for(self._request, fields, self._method, len(body) // 4)

    def _render(self, _call: Call, reply: Reply, request_id: str) -> bytes:
        request, texts = self._request, self._request.texts
        read = read_results if self._method == "reranker" else rank
        ordered = sorted(
            read(reply.data, len(texts)), key=lambda found: (-found.relevance_score, found.index)
        )
        results = [
            {
                "index": found.index,
                "relevance_score": found.relevance_score,
                **({"document": {"text": texts[found.index]}} if request.return_documents else {}),
            }
            for found in ordered[: request.top_n]
        ]
        counts = reply.counts
        tokens, said = counts.prompt, {"estimated": True} if counts.estimated else {}
        return msgspec.json.encode(
            {
                "id": request_id,
                "object": "list",
                "model": request.model,
                "method": self._method,
                "results": results,
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens, **said},
            }
        )


def call_for(request: Request, fields: Fields, method: str, prompt: int) -> Call:
    """Return what the engine is asked."""
    through = {name: value for name, value in fields.items() if name not in KNOWN}
    texts = request.texts
    if method == "reranker":
        task, path = "rerank", "/rerank"
        values: dict[str, object] = {"query": request.query, "documents": texts}
    else:
        task, path = "embedding", "/embeddings"
        values = {"input": [request.query, *texts]}
    return Call(
        task=task,
        path=path,
        model=request.model,
        stream=False,
        wants_usage=False,
        prompt=prompt,
        tokens=0,
        fields=fields_of(values, through),
        streams=False,
    )


def read_results(data: bytes, count: int) -> Sequence[Result]:
    """Return a reranker's own results, checked."""
    try:
        found = _RESULTS.decode(data).results
    except msgspec.DecodeError as error:
        raise EngineLost(
            "unavailable.engine_protocol", f"the engine's ranking is malformed: {error}"
        ) from error
    if sorted(result.index for result in found) != list(range(count)):
        raise EngineLost("unavailable.engine_protocol", "the engine did not rank every document")
    return found


def rank(data: bytes, count: int) -> Sequence[Result]:
    """Return results by the nearness of embeddings: the query's comes first."""
    query, *vectors = read_vectors(data, count + 1)
    return [Result(index, round(cosine(query, each), 6)) for index, each in enumerate(vectors)]
