"""The description of everything this serves, as OpenAPI 3.1, from the same tables that serve it."""

import re
from typing import Any

import msgspec

from freehold import __version__
from freehold.gateway.admin.answers import GIVES, STREAMS, WAITS
from freehold.gateway.admin.ask import Route
from freehold.gateway.admin.routes import ROUTES
from freehold.gateway.faults import STATUS, Envelope
from freehold.gateway.wire import (
    chat,
    completions,
    embeddings,
    infer,
    messages,
    rerank,
    responses,
)

OPENAI, ANTHROPIC = "As the OpenAI API", "As Anthropic's Messages API"
OPEN_RESPONSES, JINA = "As Open Responses, 2026-04-24", "As Jina's and Cohere's reranking APIs"
INFERENCE = "As the Open Inference Protocol, version 2"
PROMETHEUS = "As Prometheus' text format"
_COUNT = "Count the tokens of a request"
DATA_PLANE: tuple[tuple[str, str, str, Any, str], ...] = (
    ("post", "/v1/chat/completions", "Answer a conversation", chat.Request, OPENAI),
    ("post", "/v1/chat/completions/input_tokens", _COUNT, chat.Request, "As llama.cpp"),
    ("post", "/v1/completions", "Continue a text", completions.Request, OPENAI),
    ("post", "/v1/embeddings", "Turn texts into vectors", embeddings.Request, OPENAI),
    ("post", "/v1/rerank", "Order documents by relevance", rerank.Request, JINA),
    ("post", "/v1/messages", "Answer a conversation", messages.Request, ANTHROPIC),
    ("post", "/v1/messages/count_tokens", _COUNT, messages.Request, ANTHROPIC),
    ("post", "/v1/responses", "Answer, and store the response", responses.Request, OPEN_RESPONSES),
    ("post", "/v1/responses/input_tokens", _COUNT, responses.Request, OPENAI),
    ("get", "/v1/responses/{id}", "Show a stored response", None, OPENAI),
    ("delete", "/v1/responses/{id}", "Delete a stored response", None, OPENAI),
    ("get", "/v1/responses/{id}/input_items", "List what it answered", None, OPENAI),
    ("get", "/v1/models", "List deployments as models", None, OPENAI),
    ("get", "/metrics", "Show the numbers of the whole house", None, PROMETHEUS),
    ("get", "/v1/models/{name}", "Show one deployment", None, OPENAI),
    ("get", "/v2", "About this server", None, INFERENCE),
    ("get", "/v2/models/{name}", "A deployment's inputs and outputs", None, INFERENCE),
    ("get", "/v2/models/{name}/ready", "Whether it can be asked", None, INFERENCE),
    ("post", "/v2/models/{name}/infer", "Turn texts into vectors", infer.Request, INFERENCE),
    ("get", "/v2/models/{name}/versions/{version}", "The same of a version", None, INFERENCE),
    ("get", "/v2/models/{name}/versions/{version}/ready", "The same of a version", None, INFERENCE),
    (
        "post", "/v2/models/{name}/versions/{version}/infer", "The same of a version",
        infer.Request, INFERENCE,
    ),
)  # fmt: skip
"""Method, path, summary, body and answer of what is not administration."""

_WITHOUT_KEY: dict[str, Any] = {"security": []}
_ABOUT_ITSELF: dict[str, tuple[str, dict[str, Any]]] = {
    "/healthz": ("200 while this gateway runs", _WITHOUT_KEY),
    "/readyz": ("200 once everything that can be up is up", _WITHOUT_KEY),
    "/v2/health/live": ("200 while this gateway runs", _WITHOUT_KEY),
    "/v2/health/ready": ("200 once everything that can be up is up", _WITHOUT_KEY),
    "/api/openapi.json": ("Describe everything this serves", {}),
}

_EVENTS = {"text/event-stream": {"schema": {"type": "string"}}}
_NUMBERS = {"text/plain": {"schema": {"type": "string"}}}


_WORDED: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "/v1/messages",
        {
            "type": "object",
            "required": ["type", "error", "request_id"],
            "properties": {
                "type": {"const": "error"},
                "error": {"type": "object", "required": ["type", "message"]},
                "request_id": {"type": "string"},
            },
        },
    ),
    ("/v2", {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}),
)
"""Errors below a path, where they are not worded in OpenAI's way."""


def describe() -> dict[str, Any]:
    """Return the OpenAPI document."""
    administered = [kind for route in ROUTES for kind in (route.takes, route.gives)]
    asked = [kind for *_, kind, _ in DATA_PLANE]
    types = [kind for kind in (*administered, *asked, *GIVES.values(), Envelope) if kind]
    schemas, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}", schema_hook=_any
    )
    schema_of = {repr(kind): schema for kind, schema in zip(types, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of)
    for method, path, summary, takes, gives in DATA_PLANE:
        operation: dict[str, Any] = {
            "summary": summary,
            "tags": [path.split("/")[1]],
            "responses": {
                "200": _success(gives, path, schema_of.get(repr(GIVES.get((method, path))))),
                **_errors(_error_of(path)),
                **_waiting(method, path, schema_of),
                "default": _error_of(path),  # an engine's own refusal
            },
        }
        if names := _names(path):
            operation["parameters"] = names
        if takes is not None:
            operation["requestBody"] = _body(schema_of[repr(takes)])
        paths.setdefault(path, {})[method] = operation
    for path, (summary, security) in _ABOUT_ITSELF.items():
        schema = schema_of.get(repr(GIVES.get(("get", path))), {"type": "object"})
        answers = {
            "200": _success(summary, path, schema),
            **_errors(_error_of(path)),
            **_waiting("get", path, schema_of),
        }
        paths[path] = {"get": {"summary": summary, "responses": answers} | security}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Freehold", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer"},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
        "security": [{"key": []}, {"x-api-key": []}],
    }


def _any(_kind: type) -> dict[str, Any]:
    """Describe a value that may be anything: a field the engine reads, a detail of a job."""
    return {"description": "Any JSON value"}


def _success(gives: str, path: str, schema: dict[str, Any] | None) -> dict[str, Any]:
    if schema is None:
        return {"description": gives, "content": _NUMBERS}
    content = {"application/json": {"schema": schema}, **(_EVENTS if path in STREAMS else {})}
    return {"description": gives, "content": content}


def _waiting(method: str, path: str, schema_of: dict[str, Any]) -> dict[str, Any]:
    """Return what 503 is where it is an answer: not ready yet, or this gateway cannot say."""
    if path not in WAITS:
        return {}
    error = _error_of(path)
    words = error["content"]["application/json"]["schema"]
    either = {"anyOf": [schema_of[repr(GIVES[method, path])], words]}
    return {"503": {**error, "content": {"application/json": {"schema": either}}}}


def _operation(route: Route, schema_of: dict[str, Any]) -> dict[str, Any]:
    text = {"type": "string"}
    parameters = _names(route.path) + [
        {"name": name, "in": "query", "description": about, "schema": text}
        for name, about in route.query.items()
    ]
    operation: dict[str, Any] = {
        "operationId": route.handler.__module__.rpartition(".")[2] + "." + route.handler.__name__,
        "summary": route.summary,
        "description": f"Needs the permission `{route.permission}`.",
        "tags": [route.path.split("/")[2]],
        "responses": {
            str(route.status): {
                "description": route.summary,
                "content": {"application/json": {"schema": schema_of[repr(route.gives)]}},
            },
            **_errors(_error()),
        },
    }
    if parameters:
        operation["parameters"] = parameters
    if route.takes is not None:
        operation["requestBody"] = _body(schema_of[repr(route.takes)])
    return operation


def _names(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", path)
    ]


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _errors(error: dict[str, Any]) -> dict[str, Any]:
    """Return an entry for every status that an error of ours has."""
    return {str(status): error for status in sorted({status for _, status, _ in STATUS})}


def _error_of(path: str) -> dict[str, Any]:
    """Return how the API that a path belongs to words errors."""
    named = (schema for prefix, schema in _WORDED if path.startswith(prefix))
    return _error(next(named, None))


def _error(schema: dict[str, Any] | None = None) -> dict[str, Any]:
    schema = schema or {"$ref": "#/components/schemas/Envelope"}
    return {"description": "An error", "content": {"application/json": {"schema": schema}}}
