"""The description of what is served: whole, and right."""

import re
from typing import Any

from freehold.gateway.admin.routes import ROUTES as ADMINISTRATION
from freehold.gateway.routes import ROUTES as DATA_PLANE
from tests.house import House

METHODS = {"get", "put", "post", "delete"}


def test_a_running_house_describes_itself(house: House) -> None:
    answer = house.call("GET", "/api/openapi.json")
    assert answer.status == 200, answer.body
    document = answer.json
    assert re.fullmatch(r"3\.1\.\d+", document["openapi"])
    assert set(document["info"]) >= {"title", "version"}
    served = {(route.method.lower(), route.path) for route in ADMINISTRATION}
    served |= {(method.lower(), path) for path, methods in DATA_PLANE.items() for method in methods}
    described = {(m, path) for path, item in document["paths"].items() for m in item}
    assert served <= described
    assert {("get", "/healthz"), ("get", "/readyz")} <= described
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert method in METHODS
            _check_operation(path, operation)
    names = [o["operationId"] for i in document["paths"].values() for o in i.values()
             if "operationId" in o]  # fmt: skip
    assert len(set(names)) == len(names)
    _check_references(document, document)


def test_it_wants_a_key(house: House) -> None:
    assert house.call("GET", "/api/openapi.json", key=None).status == 401


def _check_operation(path: str, operation: dict[str, Any]) -> None:
    named = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"}
    assert named == set(re.findall(r"\{(\w+)\}", path))
    assert operation["responses"]
    for status, response in operation["responses"].items():
        assert re.fullmatch(r"[2-5]\d\d|default", status)
        assert response["description"]


def _check_references(part: Any, document: Any) -> None:
    """Every reference leads somewhere, every pattern is one that other languages read too."""
    if isinstance(part, list):
        for each in part:
            _check_references(each, document)
    elif isinstance(part, dict):
        for name, value in part.items():
            if name == "$ref":
                found = document
                for step in value.removeprefix("#/").split("/"):
                    found = found[step]
            elif name == "pattern" and isinstance(value, str):
                assert not re.search(r"\\[AZz]", value)
            _check_references(value, document)
