"""The command line: what people and scripts rely on."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.house import House, eventually

Make = Callable[..., House]
READING = [
    ("status",), ("model", "list"), ("model", "show", "smol"), ("model", "catalog"),
    ("model", "verify", "smol"), ("model", "settings", "smol"), ("key", "list"), ("export",),
    ("chat", "hello", "--model", "smol", "--max-tokens", "4"), ("completion", "bash"),
]  # fmt: skip


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_json_is_one_document_and_nothing_else(house: House, command: tuple[str, ...]) -> None:
    json.loads(house.cli(*command, "--json"))
    json.loads(house.cli("--json", *command))
    assert house.cli(*command).strip()


def test_chat_streams_and_names_who_answered(house: House) -> None:
    document = house.json("chat", "What is gravity?", "--max-tokens", "5")
    assert document["deployment"] == "smol"
    assert document["usage"]["completion_tokens"] == 5
    assert house.audit(id=document["request"])[0]["outcome"] == "ok"


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        (("nonsense",), 2, "No such command"),
        (("model", "show"), 2, "Missing argument"),
        (("deploy",), 2, "give either a model's NAME or --url"),
        (("deploy", "--url", "http://x/v1"), 2, "--as DEPLOYMENT"),
        (("key", "create", "--principal", "x", "--role", "king"), 2, "king"),
        (("key", "create", "--principal", "x", "--expires", "soon"), 2, "30d"),
        (("model", "show", "none"), 1, "no model 'none'"),
        (("model", "promote", "smol"), 1, "NAME:VERSION"),
        (("model", "promote", "smol:9"), 1, "no version 9"),
        (("deploy", "none"), 1, "no model 'none'"),
        (("deploy", "smol", "--as", "Bad Name"), 1, "cannot be a name"),
        (("deploy", "--url", "ftp://x", "--as", "y"), 1, "no http(s) URL"),
        (("deploy", "--url", "http://x", "--as", "y", "--upstream-key", "sk-1"), 1, "reference"),
        (("undeploy", "none"), 1, "no deployment"),
        (("key", "revoke", "none"), 1, "no live key"),
        (("apply", "/nowhere.toml"), 1, "cannot read"),
        (("chat", "hi", "--model", "none"), 1, "no deployment 'none'"),
    ],
)
def test_refusals_are_one_clear_line(
    house: House, command: tuple[str, ...], code: int, says: str
) -> None:
    told = house.run_cli(*command)
    assert told.returncode == code
    assert says in told.stderr
    assert told.stdout == ""
    if code == 1:
        assert told.stderr.startswith("freehold: ")
        assert told.stderr.count("\n") == 1


def test_url_and_key_reach_another_freehold(house: House, tmp_path: Path) -> None:
    elsewhere = House(tmp_path / "none")
    auditor = house.make_key("auditor")
    shown = elsewhere.cli("model", "list", "--url", house.url, "--key", auditor)
    assert "smol" in shown
    told = elsewhere.run_cli("undeploy", "smol", "--url", house.url, "--key", auditor)
    assert told.returncode == 1
    assert "the role auditor may not do deployment:write" in told.stderr
    told = elsewhere.run_cli("model", "list", "--url", "http://127.0.0.1:9", "--key", "x")
    assert told.returncode == 1
    assert "no Freehold answers" in told.stderr


def test_without_a_running_one_the_home_is_administered_directly(new_house: Make) -> None:
    house = new_house()
    key = house.cli("key", "create", "--principal", "ann").strip()
    assert house.run_cli("chat", "hi").returncode == 1
    house.start()
    assert house.chat(key=key).status == 200
    acts = [r for r in house.audit(limit="1000") if r.get("subject") == "POST /api/keys"]
    assert acts[-1]["principal"].startswith("local:")


def test_export_then_apply_on_an_empty_home_gives_the_same_state(
    own_house: House, new_house: Make, tmp_path: Path
) -> None:
    own_house.cli("model", "promote", "smol:1", "--alias", "staging")
    own_house.cli("deploy", "smol:staging", "--as", "b", "--replicas", "2", "--fallback", "smol")
    own_house.cli("deploy", "--url", "http://127.0.0.1:9/v1", "--as", "c", "--place", "cloud",
                  "--upstream-key", "env:SOME_KEY")  # fmt: skip
    text = own_house.cli("export")
    file = tmp_path / "state.toml"
    file.write_text(text)
    other = new_house(empty=True, name="other")
    planned = other.json("apply", str(file), "--plan")
    assert {change["act"] for change in planned["changes"]} == {"import", "change", "create"}
    assert other.json("model", "list") == []
    other.cli("apply", str(file))
    assert other.cli("export") == text
    assert other.json("apply", str(file), "--plan")["changes"] == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[deployments]]\nname = 'x'", "either model"),
        ("[[deployments]]\nname = 'x'\nmodel = 'm'\nreplicas = 0", "replicas"),
        ("[[deployments]]\nname = 'x'\nmodel = 'm'\ncolour = 'red'", "colour"),
        ("[[deployments]]\nname = 'x'\nmodel = 'm'\n" * 2, "twice"),
        ("[[deployments]]\nname = 'x'\nurls = ['http://a']\nupstream_key = 's3cret'", "reference"),
        ("deployments = 3", "deployments"),
        ("not toml", "the document is wrong"),
    ],
)
def test_a_wrong_document_changes_nothing(house: House, text: str, says: str) -> None:
    before = house.cli("export")
    told = house.run_cli("apply", "-", text=text)
    assert told.returncode == 1
    assert says in told.stderr
    assert "s3cret" not in told.stderr
    assert house.cli("export") == before


def test_apply_imports_what_is_missing_and_removes_what_is_not_named(
    own_house: House, weights: Path
) -> None:
    digest = own_house.deployment()["digest"]
    document = f"""
        [[models]]
        name = "fresh"
        source = "{weights}"
        sha256 = "{digest}"
        [[deployments]]
        name = "fresh"
        model = "fresh"
    """
    own_house.cli("apply", "-", text=document)
    eventually(lambda: own_house.chat(model="fresh").status == 200, "it answers")
    assert own_house.chat().status == 404


def test_doctor_finds_nothing_wrong_and_something_wrong(new_house: Make) -> None:
    house = new_house()
    assert house.json("doctor")["ok"] is True
    (house.home / "pepper").chmod(0o644)
    told = house.run_cli("doctor", "--json")
    assert told.returncode == 1
    assert "chmod 600" in told.stdout
    (house.home / "freehold.toml").write_text("[server]\nport = 'x'\n")
    told = house.run_cli("doctor")
    assert told.returncode == 1
    assert "server.port" in told.stdout
