"""The description of everything this serves, as OpenAPI 3.1, from the same tables that serve it."""

import re
from typing import Any

import msgspec

from freehold import __version__
from freehold.gateway.admin.ask import Route
from freehold.gateway.admin.routes import ROUTES
from freehold.gateway.faults import Envelope
from freehold.gateway.wire import chat, completions, embeddings

_DATA_PLANE = (
    ("post", "/v1/chat/completions", "Answer a conversation", chat.Request),
    ("post", "/v1/completions", "Continue a text", completions.Request),
    ("post", "/v1/embeddings", "Turn texts into vectors", embeddings.Request),
    ("get", "/v1/models", "List deployments as models", None),
)


def describe() -> dict[str, Any]:
    """Return the OpenAPI document."""
    types = [
        kind for route in ROUTES for kind in (route.takes, route.gives) if kind is not None
    ] + [kind for *_, kind in _DATA_PLANE if kind is not None] + [Envelope]  # fmt: skip
    schemas, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}", schema_hook=_any
    )
    schema_of = {repr(kind): schema for kind, schema in zip(types, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of)
    for method, path, summary, takes in _DATA_PLANE:
        operation: dict[str, Any] = {
            "summary": summary,
            "tags": ["v1"],
            "responses": {"200": {"description": "As the OpenAI API"}, "default": _error()},
        }
        if takes is not None:
            operation["requestBody"] = _body(schema_of[repr(takes)])
        paths.setdefault(path, {})[method] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "Freehold", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}],
    }


def _any(_kind: type) -> dict[str, Any]:
    """Describe a value that may be anything: a field the engine reads, a detail of a job."""
    return {}


def _operation(route: Route, schema_of: dict[str, Any]) -> dict[str, Any]:
    names = re.findall(r"\{(\w+)\}", route.path)
    text = {"type": "string"}
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": text} for name in names
    ] + [
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
            "default": _error(),
        },
    }
    if parameters:
        operation["parameters"] = parameters
    if route.takes is not None:
        operation["requestBody"] = _body(schema_of[repr(route.takes)])
    return operation


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _error() -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Envelope"}
    return {"description": "An error", "content": {"application/json": {"schema": schema}}}
