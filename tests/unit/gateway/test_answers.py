"""What is described is what is answered: every golden answer is of the type that is promised."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from freehold.gateway.admin.answers import GIVES, STREAMS, WAITS
from freehold.gateway.admin.openapi import describe
from freehold.gateway.routes import ROUTES

GOLDEN = sorted(Path(__file__).parents[2].glob("golden/*/*.json"))


def given(method: str, path: str) -> Any:
    for (named, shape), kind in GIVES.items():
        if named == method and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", shape), path):
            return kind
    raise LookupError(path)


def test_golden_answers_are_of_the_types_that_are_promised() -> None:
    checked = set()
    for file in GOLDEN:
        case = json.loads(file.read_text())
        if case["status"] != 200 or not isinstance(case["answer"], dict):
            continue
        kind = given(case.get("method", "POST").lower(), case["path"])
        msgspec.convert(case["answer"], kind)
        checked.add(kind.__name__)
        for needed in (field for field in msgspec.structs.fields(kind) if field.required):
            less = {name: v for name, v in case["answer"].items() if name != needed.encode_name}
            with pytest.raises(msgspec.ValidationError):
                msgspec.convert(less, kind)
    assert checked >= {
        "ChatAnswer", "MessageAnswer", "ResponseAnswer", "RerankAnswer", "TokenCount",
        "InferenceAnswer", "InferenceModel", "InferenceServer", "InferenceReady",
    }  # fmt: skip


def test_every_answer_is_described_and_every_description_is_of_a_route() -> None:
    routes = {(method.lower(), path) for path, methods in ROUTES.items() for method in methods}
    assert routes - GIVES.keys() == {("get", "/metrics")}
    assert {path for _, path in GIVES} >= STREAMS | WAITS
    paths = describe()["paths"]
    for method, path in GIVES:
        answers = paths[path][method]["responses"]
        content = answers["200"]["content"]
        assert "$ref" in content["application/json"]["schema"], path
        assert ("text/event-stream" in content) == (path in STREAMS), path
        assert ("anyOf" in answers["503"]["content"]["application/json"]["schema"]) == (
            path in WAITS
        ), path
