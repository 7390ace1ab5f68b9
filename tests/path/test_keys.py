"""Who may do what, and how soon a change is in force."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from freehold.policy.permissions import ROLES
from tests.house import House, eventually

ADMINISTRATION = [
    ("GET", "/api/models", "model:read"),
    ("GET", "/api/models/smol", "model:read"),
    ("GET", "/api/catalog", "model:read"),
    ("POST", "/api/models", "model:import"),
    ("PUT", "/api/models/smol/aliases/staging", "model:import"),
    ("DELETE", "/api/models/none", "model:remove"),
    ("GET", "/api/deployments", "deployment:read"),
    ("GET", "/api/status", "deployment:read"),
    ("GET", "/api/desired", "deployment:read"),
    ("PUT", "/api/deployments/x", "deployment:write"),
    ("DELETE", "/api/deployments/none", "deployment:write"),
    ("PUT", "/api/desired", "deployment:write"),
    ("GET", "/api/keys", "key:read"),
    ("POST", "/api/keys", "key:write"),
    ("DELETE", "/api/keys/none", "key:write"),
    ("GET", "/api/usage", "usage:read"),
    ("GET", "/api/audit", "audit:read"),
    ("POST", "/v1/chat/completions", "completion:run"),
    ("POST", "/v1/embeddings", "completion:run"),
    ("GET", "/v1/models", "model:read"),
]


@pytest.mark.parametrize("role", list(ROLES))
def test_a_role_may_do_exactly_what_it_lists(house: House, role: str) -> None:
    key = house.make_key(role)
    for method, path, permission in ADMINISTRATION:
        answer = house.call(method, path, b"[]" if method in ("POST", "PUT") else None, key=key)
        if permission in ROLES[role]:
            assert answer.status != 403, (method, path)
        else:
            assert answer.status == 403, (method, path)
            assert answer.error["code"] == "forbidden.role"
            assert role in answer.error["message"]


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "missing_key"),
        ("", "missing_key"),
        ("Bearer", "malformed_key"),
        ("Basic YWJj", "malformed_key"),
        ("Bearer " + "x" * 5000, "malformed_key"),
        ("Bearer fh-000000000000-nothing", "unknown_key"),
        ("Bearer sk-somebody-elses", "unknown_key"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/api/status", "/api/openapi.json"])
def test_without_a_good_key_nothing_is_told(
    house: House, path: str, header: str | None, code: str
) -> None:
    headers = {"authorization": header} if header is not None else {}
    answer = house.call("GET", path, key=None, headers=headers)
    assert (answer.status, answer.error["code"]) == (401, f"unauthenticated.{code}")
    assert answer.headers["www-authenticate"] == 'Bearer realm="freehold"'


def test_health_needs_no_key_and_tells_nothing(house: House) -> None:
    for path in ("/healthz", "/readyz"):
        answer = house.call("GET", path, key=None)
        assert (answer.status, answer.json) == (200, {"status": "ok"})


def test_an_expired_key_is_refused(house: House) -> None:
    key = house.make_key("developer", expires_in=1)
    assert house.chat(key=key).status == 200
    time.sleep(1.1)
    answer = house.chat(key=key)
    assert (answer.status, answer.error["code"]) == (401, "unauthenticated.expired_key")
    states = {k["principal"]: k["state"] for k in house.call("GET", "/api/keys").json}
    assert states["a-developer"] in ("live", "expired")


def test_a_revocation_is_in_force_everywhere_when_its_answer_comes(house: House) -> None:
    assert len(house.gateways()) == 2
    for _ in range(5):
        created = house.call("POST", "/api/keys", {"principal": "gone"}).json
        ask = partial(_status, house, created["key"])
        with ThreadPoolExecutor(8) as pool:  # enough connections to meet both gateways
            before = list(pool.map(ask, range(16)))
            assert set(before) == {200}
            assert house.call("DELETE", f"/api/keys/{created['id']}").status == 200
            after = list(pool.map(ask, range(16)))
        assert set(after) == {401}
    again = house.call("DELETE", f"/api/keys/{created['id']}")
    assert again.status == 404


def test_a_secret_is_shown_once_and_kept_nowhere(house: House) -> None:
    created = house.call("POST", "/api/keys", {"principal": "secret-holder"}).json
    house.chat(key=created["key"])
    secret = created["key"].split("-", 2)[2].encode()
    assert created["key"] not in json.dumps(house.call("GET", "/api/keys").json)
    admin = house.key.split("-", 2)[2].encode()
    for path in house.home.rglob("*"):
        if path.is_file() and "blobs" not in path.parts and path.name != "admin.key":
            data = path.read_bytes()
            assert secret not in data, path
            assert admin not in data, path


def test_private_files_are_private(house: House) -> None:
    for name in ("admin.key", "pepper", "run/snapshot.json"):
        assert (house.home / name).stat().st_mode & 0o077 == 0, name
    assert house.home.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"principal": "x", "role": "king"}, "no role king"),
        ({"principal": ""}, "cannot be a name"),
        ({"principal": "x", "expires_in": -1}, "future"),
        ({"principal": "x", "rolle": "admin"}, "rolle"),
        ({}, "principal"),
    ],
)
def test_bad_keys_are_refused(house: House, body: dict[str, object], says: str) -> None:
    answer = house.call("POST", "/api/keys", body)
    assert answer.status == 400
    assert says in answer.error["message"]


def test_many_refusals_without_a_key_are_summed_up(own_house: House) -> None:
    for _ in range(60):
        assert own_house.call("GET", "/v1/models", key="fh-x-y").status == 401

    def counted() -> int:
        records = [record for record in own_house.audit(limit="200") if "principal" not in record]
        summed = [int(r["subject"].split()[0]) for r in records if r["action"] == "none"]
        return len(records) - len(summed) + sum(summed)

    eventually(lambda: counted() == 60, "every one of them in the record")


def test_gateways_only_routes_are_closed(house: House) -> None:
    snapshot = json.loads((house.home / "run" / "snapshot.json").read_text())
    for key in (None, "admin"):
        answer = house.call("POST", "/internal/follow", b"{}", key=key, url=snapshot["control_url"])
        assert answer.status == 401
    assert house.call("POST", "/internal/follow", b"{}").status == 404


def _status(house: House, key: str, _number: int) -> int:
    return house.call("GET", "/v1/models", key=key).status


def test_only_an_administrator_may_send_a_secret_of_this_machine_elsewhere(house: House) -> None:
    operator = house.make_key("operator")
    body = {
        "name": "elsewhere", "urls": ["http://127.0.0.1:9/v1"],
        "upstream_key": f"file:{house.home}/admin.key",
    }  # fmt: skip
    path = "/api/deployments/elsewhere"
    assert house.call("PUT", path, body, key=operator).error["code"] == "forbidden.role"
    document = (
        f'[[deployments]]\nname = "elsewhere"\nurls = {body["urls"]}\n'
        f'upstream_key = "{body["upstream_key"]}"\n'
    )
    wanted = {"document": document}
    assert house.call("PUT", "/api/desired", wanted, key=operator).error["code"] == "forbidden.role"
    assert house.call("PUT", path, {**body, "upstream_key": None}, key=operator).status == 200
    assert house.call("DELETE", path, key=operator).status == 200
    assert house.call("PUT", path, body).status == 200
    assert house.call("PUT", path, {**body, "hedge_ms": 5}, key=operator).status == 200
    moved = {**body, "urls": ["http://127.0.0.1:10/v1"]}
    assert house.call("PUT", path, moved, key=operator).status == 403
    house.call("DELETE", path)
