"""What the record says of imports, jobs and keys; what is followed is recorded once."""

import json
import pickle
from pathlib import Path

import pytest

from tests.house import House, eventually


@pytest.fixture
def own(tmp_path: Path) -> House:
    house = House(tmp_path / "home")
    house.start()
    return house


def test_the_record_says_what_was_imported_and_how_it_ended(own: House, tmp_path: Path) -> None:
    evil = tmp_path / "evil.pkl"
    evil.write_bytes(pickle.dumps({"a": 1}))
    own.cli("model", "import", str(evil), "--name", "evil", code=1)
    asked, ended = (
        [r for r in own.audit(action="model:import") if (" ended" in r["subject"]) is over]
        for over in (False, True)
    )
    assert [r["subject"].partition(", job")[0] for r in asked] == [f"import {evil} as evil"]
    assert [(r["outcome"], r["error"].split(".")[0]) for r in ended] == [("refused", "invalid")]
    assert str(evil) in ended[0]["subject"]
    assert ended[0]["principal"] == asked[0]["principal"] == "admin"
    assert ended[0]["key"] == asked[0]["key"]
    assert own.audit(action="model:import", outcome="refused") == ended
    assert own.call("GET", "/api/audit?outcome=great").error["param"] == "outcome"


def test_the_record_of_a_key_says_whose_and_never_the_secret(own: House) -> None:
    made = own.json("key", "create", "--principal", "bob", "--role", "operator")
    own.cli("key", "revoke", made["id"])
    found = [record["subject"] for record in own.audit(action="key:write")]
    assert found == [f"key {made['id']} of bob (operator)", f"key {made['id']} for bob (operator)"]
    for journal in (own.home / "audit").glob("*.jsonl"):
        assert made["key"] not in journal.read_text()


def test_to_follow_is_recorded_once_and_a_refused_look_always(own: House) -> None:
    key = own.make_key("auditor")
    for _ in range(3):
        assert own.call("GET", "/api/jobs/none?wait=0").status == 404
    assert len([r for r in own.audit(limit="100") if r["subject"] == "GET /api/jobs/none"]) == 3
    job = own.call("POST", "/api/registry/verify").json["id"]
    path = f"/api/jobs/{job}"
    eventually(lambda: own.call("GET", f"{path}?wait=1").json["state"] == "done", "verified")
    for _ in range(5):
        assert own.call("GET", f"{path}?wait=0", key=key).status == 200
        assert own.call("GET", f"{path}?wait=0").status == 200
    looks = [r["principal"] for r in own.audit(limit="100") if r["subject"] == f"GET {path}"]
    assert sorted(looks) == ["a-auditor", "admin"]
    assert own.call("GET", path).status == 200
    assert len([r for r in own.audit(limit="100") if r["subject"] == f"GET {path}"]) == 3


def test_without_a_server_the_end_is_on_record_too(tmp_path: Path) -> None:
    house = House(tmp_path / "home")
    evil = tmp_path / "evil.pkl"
    evil.write_bytes(pickle.dumps([1]))
    house.cli("model", "import", str(evil), "--name", "evil", code=1)
    lines = [
        json.loads(line)
        for journal in (house.home / "audit").glob("*.jsonl")
        for line in journal.read_text().splitlines()
    ]
    ended = [line for line in lines if " ended" in line["subject"]]
    assert [line["outcome"] for line in ended] == ["refused"]
    assert ended[0]["principal"].startswith("local:")
