"""The table of URLs, and the description that is served of it."""

import json

from freehold.gateway.admin.openapi import DATA_PLANE, describe
from freehold.gateway.routes import ROUTES, find
from freehold.policy.permissions import PERMISSIONS


def test_the_description_has_every_route_and_no_other() -> None:
    served = {(method.lower(), path) for path, methods in ROUTES.items() for method in methods}
    assert {(method, path) for method, path, *_ in DATA_PLANE} == served
    paths = json.loads(json.dumps(describe()))["paths"]
    for method, path in served:
        if method == "post":
            assert paths[path][method]["requestBody"]["content"]["application/json"]["schema"]
        assert len(paths[path][method].get("parameters", ())) == path.count("{")


def test_routes_are_found_whole() -> None:
    assert find("/v1/responses/resp_1") is ROUTES["/v1/responses/{id}"]
    assert find("/v1/responses/input_tokens") is ROUTES["/v1/responses/input_tokens"]
    assert find("/v1/models/a") is ROUTES["/v1/models/{name}"]
    for path in ("/v1/models/a/b", "/v1/models/", "/v1/responses/", "/v2/", "/v1/messages/x"):
        assert find(path) is None


def test_every_route_names_a_permission_there_is() -> None:
    routes = [route for methods in ROUTES.values() for route in methods.values()]
    assert {route.permission for route in routes} <= set(PERMISSIONS)
