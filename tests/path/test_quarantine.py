"""Quarantine and licences from outside: who may, who confirms, and what the record says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.house import House, eventually
from tests.make_gguf import gguf, tweak
from tests.make_model import model

BAD = {"general.architecture": "llama", "tokenizer.chat_template": "{{ ''.__class__ }}"}


@pytest.fixture
def stricter(new_house: Callable[..., House]) -> House:
    settings = '[licences]\nask = ["gemma"]\ndeny = ["cc-by-nc-*"]\n'
    return new_house(empty=True, settings=settings).start()


def _key(house: House, principal: str, role: str, by: str = "admin") -> str:
    made = house.call("POST", "/api/keys", {"principal": principal, "role": role}, key=by)
    key = made.json["key"]
    assert isinstance(key, str)
    return key


def _import(house: House, source: Path, name: str, key: str) -> Any:
    job = house.call("POST", "/api/models", {"source": str(source), "name": name}, key=key).json
    return house.call("GET", f"/api/jobs/{job['id']}?wait=30").json


def test_two_people_release_a_model_and_the_record_names_them(
    stricter: House, weights: Path, tmp_path: Path
) -> None:
    house = stricter
    bad = tweak(weights, tmp_path / "bad.gguf", {"tokenizer.chat_template": BAD[
        "tokenizer.chat_template"]})  # fmt: skip
    eve, ann, bob = (_key(house, name, role) for name, role in (
        ("eve", "operator"), ("ann", "admin"), ("bob", "admin")))  # fmt: skip
    dan = _key(house, "dan", "admin", by=ann)
    _key(house, "zoe", "admin", by=bob)
    made = {each["principal"]: each["created_by"] for each in house.json("key", "list")}
    assert made == {"admin": None, "eve": "admin", "ann": "admin", "bob": "admin", "dan": "ann",
                    "zoe": "bob"}  # fmt: skip
    assert "BY" in house.cli("key", "list")
    assert _import(house, bad, "bad", eve)["state"] == "done"
    shown = house.call("GET", "/api/models/bad").json
    held = shown["versions"][0]["quarantine"]
    assert held["open"]
    assert held["findings"][0]["rule"] == "template.code"
    assert shown["aliases"] == {}
    deployment = {"name": "bad", "model": "bad:1"}
    for key in (eve, ann, "admin"):
        refused = house.call("PUT", "/api/deployments/bad", deployment, key=key)
        assert (refused.status, refused.error["code"]) == (403, "refused.quarantined")
    path = "/api/models/bad/versions/1/release"
    assert house.call("POST", path, {"reason": "x"}, key=eve).error["code"] == "forbidden.role"
    asked = house.call("POST", path, {"reason": "our own template"}, key=ann)
    assert asked.json["quarantine"]["open"]
    assert house.call("POST", path, {}, key=ann).error["code"] == "forbidden.same_person"
    carl = _key(house, "carl", "admin")  # made by the one who asks, say
    assert house.call("POST", path, {}, key=carl).error["code"] == "forbidden.new_key"
    own = house.call("POST", path, {})  # who has made ann's key
    assert (own.status, own.error["code"]) == (403, "forbidden.own_key")
    assert "somebody else must confirm; bob, zoe can" in own.error["message"]
    assert house.call("POST", path, {}, key=dan).error["code"] == "forbidden.own_key"
    assert house.call("PUT", "/api/deployments/bad", deployment).status == 403
    assert house.call("POST", path, {}, key=bob).json["quarantine"]["open"] is False
    assert house.call("PUT", "/api/deployments/bad", deployment, key=eve).status == 200
    acts = [record for record in house.audit() if record["action"] == "model:release"]
    told = {(record["principal"], record["outcome"]) for record in acts}
    assert {
        ("ann", "ok"),
        ("bob", "ok"),
        *((who, "refused") for who in ("eve", "ann", "carl", "admin", "dan")),
    } == told
    assert all(record["subject"] == f"POST {path}" for record in acts)


def test_a_document_and_an_alias_do_not_get_around_it(stricter: House, tmp_path: Path) -> None:
    house = stricter
    (tmp_path / "bad.gguf").write_bytes(gguf(BAD))
    ran = house.run_cli("model", "import", str(tmp_path / "bad.gguf"), "--name", "bad", "--json")
    assert ran.returncode == 1
    assert '"open": true' in ran.stdout
    document = '[[deployments]]\nname = "d"\nmodel = "bad:1"\n'
    developer = _key(house, "dave", "developer")  # a plan tells which files are on this machine
    refused = house.call("POST", "/api/desired/plan", {"document": document}, key=developer)
    assert refused.error["code"] == "forbidden.role"
    refused = house.call("POST", "/api/desired/plan", {"document": document})
    assert "in quarantine" in refused.error["message"]
    assert house.call("PUT", "/api/desired", {"document": document}).status == 400
    moved = house.call("PUT", "/api/models/bad/aliases/best", {"version": 1})
    assert moved.error["code"] == "refused.quarantined"
    digest = house.json("model", "show", "bad")["versions"][0]["digest"]
    moving = f'[[aliases]]\nmodel = "bad"\nalias = "production"\nsha256 = "{digest}"\n'
    house.call("PUT", "/api/desired", {"document": moving + document.replace("bad:1", "bad")})
    shown = house.call("GET", "/api/deployments/d")
    assert shown.status == 404 or not shown.json["replicas"]
    assert house.call("GET", "/api/models/bad").json["aliases"] == {}
    assert "1!" in house.cli("model", "list")
    assert "IN QUARANTINE" in house.cli("model", "show", "bad")


def test_licences_are_held_to_at_import_and_at_deploy(stricter: House, tmp_path: Path) -> None:
    house = stricter
    for name, licence in (("a", "cc-by-nc-4.0"), ("b", "gemma")):
        fields = {"general.architecture": "llama", "general.license": licence}
        (tmp_path / f"{name}.gguf").write_bytes(gguf(fields))
    failed = _import(house, tmp_path / "a.gguf", "a", "admin")
    assert failed["error"]["code"] == "refused.licence"
    assert _import(house, tmp_path / "b.gguf", "b", "admin")["state"] == "done"
    deployment = {"name": "b", "model": "b"}
    refused = house.call("PUT", "/api/deployments/b", deployment)
    assert (refused.status, refused.error["code"]) == (403, "refused.licence_not_accepted")
    developer = _key(house, "dev", "developer")
    assert house.call("POST", "/api/models/b/accept", key=developer).status == 403
    assert "gemma accepted" in house.cli("model", "accept", "b")
    assert house.call("PUT", "/api/deployments/b", deployment).status == 200


def test_what_a_new_rule_finds_stops_what_runs_and_two_people_bring_it_back(
    new_house: Callable[..., House], weights: Path, tmp_path: Path
) -> None:
    pytest.importorskip("yara_x")
    source = model(weights, tmp_path / "tiny.gguf")
    house = new_house(empty=True).start()
    house.cli("model", "import", str(source), "--name", "tiny")
    house.cli("deploy", "tiny", "--wait")
    body = {"model": "tiny", "prompt": "The", "max_tokens": 1}
    assert house.call("POST", "/v1/completions", body).status == 200
    engine = house.engine_pid("tiny")
    house.kill_control()
    rules = tmp_path / "new.yar"
    rules.write_text('rule sleeper { strings: $a = "tiny 1" condition: $a }')
    (house.home / "freehold.toml").write_text(f'[scan]\nyara = ["{rules}"]\n')
    house.start()
    assert house.engine_pid("tiny") == engine  # a rule alone has read nothing
    again = house.run_cli("model", "import", str(source), "--name", "tiny")
    assert again.returncode == 1
    assert "IN QUARANTINE" in again.stdout
    eventually(lambda: not psutil.pid_exists(engine), "its engine is gone")
    refused = house.call("POST", "/v1/completions", body)
    assert refused.status == 503, refused.body
    shown = house.deployment("tiny")
    assert (shown["state"], shown["replicas"]) == ("missing", [])
    assert "in quarantine" in shown["reason"]
    (record,) = eventually(
        lambda: [r for r in house.audit() if r["action"] == "model:quarantined"], "it is recorded"
    )
    assert (record["principal"], record["model"], record["version"]) == ("admin", "tiny", 1)
    assert record["subject"] == "yara.match; stopped: tiny"
    assert "tiny:1 is in quarantine: yara.match" in house.log
    ann, bob = _key(house, "ann", "admin"), _key(house, "bob", "admin")
    path = "/api/models/tiny/versions/1/release"
    house.call("POST", path, {"reason": "a name, no more"}, key=ann)
    assert house.call("POST", "/v1/completions", body).status == 503
    assert house.call("POST", path, {}, key=bob).json["quarantine"]["open"] is False
    eventually(lambda: house.call("POST", "/v1/completions", body).status == 200, "it runs again")
