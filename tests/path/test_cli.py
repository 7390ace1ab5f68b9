"""The command line: what people and scripts rely on."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.house import House, eventually
from tests.make_gguf import gguf

Make = Callable[..., House]
READING = [
    ("status",), ("model", "list"), ("model", "show", "smol"), ("model", "catalog"),
    ("model", "verify", "smol"), ("model", "settings", "smol"), ("key", "list"), ("export",),
    ("chat", "hello", "--model", "smol", "--max-tokens", "4"), ("completion", "bash"),
    ("usage",), ("audit", "list", "--limit", "3"),
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
        (("key", "create", "--principal", "x", "--expires", "5"), 2, "say 5d, 5h, 5m or 5s"),
        (("model", "show", "none"), 1, "no model 'none'"),
        (("model", "promote", "smol"), 1, "NAME:VERSION"),
        (("model", "promote", "smol:9"), 1, "no version 9"),
        (("deploy", "none"), 1, "no model 'none' here: freehold model import SOURCE --name none"),
        (("deploy", "gemma-3-270m:2"), 1, "freehold model import gemma-3-270m brings it in"),
        (("deploy", "smol", "--as", "Bad Name"), 1, "cannot be a name"),
        (("deploy", "--url", "ftp://x", "--as", "y"), 1, "no http(s) URL"),
        (("deploy", "--url", "http://x", "--as", "y", "--upstream-key", "sk-1"), 1, "reference"),
        (("deploy", "smol", "--as", "y", "--context", "999999"), 1, "freehold: y: context 999999"),
        (("deploy", "smol", "--as", "y", "--fallback", "none"), 1, "no deployment 'none'"),
        (("undeploy", "none"), 1, "no deployment"),
        (("model", "import", "smollm2-135m-instruct", "--sha256", "0" * 64), 1, "pinned to sha256"),
        (("model", "import", "x.gguf", "--sha256", "0"), 1, "64 hexadecimal digits"),
        (("model", "list", "--url", "127.0.0.1:8456", "--key", "x"), 1, "http://127.0.0.1:8456"),
        (("chat", "hi", "--url", "http://", "--key", "x"), 1, "is no http(s) URL"),
        (("usage", "--since", "soon"), 1, "2026-01-31"),
        (("key", "revoke", "none"), 1, "no live key"),
        (("apply", "/nowhere.toml"), 1, "cannot read"),
        (("apply", __file__), 1, f"{__file__}: the document is wrong"),
        (("limit", "set", "principal:x", "tokens=1/hour"), 2, "minute, day, month, total"),
        (("limit", "set", "principal:x", "words=1/day"), 2, "requests, tokens_in"),
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


def test_a_refusal_with_json_is_a_document(house: House) -> None:
    told = house.run_cli("undeploy", "none", "--json")
    assert told.returncode == 1
    error = json.loads(told.stdout)["error"]
    assert error["code"] == "missing.deployment"
    assert told.stderr == f"freehold: {error['message']}\n"


def test_what_was_refused_is_not_kept(house: House) -> None:
    house.cli("deploy", "smol", "--as", "y", "--context", "999999", code=1)
    house.cli("deploy", "smol", "--as", "y", "--fallback", "none", code=1)
    assert [d["name"] for d in house.call("GET", "/api/deployments").json] == ["smol"]


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
    stopped = house.cli("status")
    assert "is stopped" in stopped
    assert "ready" not in stopped.replace("READY", "")
    assert "loading" not in stopped
    found = house.json("status")
    assert (found["ready"], found["deployments"][0]["state"]) == (False, "stopped")
    told = house.run_cli("deploy", "smol", "--as", "late", "--wait")
    assert told.returncode == 1
    assert "cannot wait" in told.stderr
    assert len(house.json("status")["deployments"]) == 1
    house.start()
    assert house.chat(key=key).status == 200
    acts = [r for r in house.audit(limit="1000") if r["action"] == "key:write"]
    assert acts[-1]["principal"].startswith("local:")
    assert "for ann" in acts[-1]["subject"]


def test_export_then_apply_on_an_empty_home_gives_the_same_state(
    own_house: House, new_house: Make, tmp_path: Path
) -> None:
    own_house.cli("model", "promote", "smol:1", "--alias", "staging")
    own_house.cli("deploy", "smol:staging", "--as", "b", "--replicas", "2", "--fallback", "smol")
    secret = tmp_path / "secret"
    secret.write_text("sk-1")
    own_house.cli("deploy", "--url", "http://127.0.0.1:9/v1", "--as", "c", "--place", "cloud",
                  "--upstream-key", f"file:{secret}")  # fmt: skip
    own_house.cli("model", "settings", "smol", "--context", "1024")
    text = own_house.cli("export")
    file = tmp_path / "state.toml"
    file.write_text(text)
    other = new_house(empty=True, name="other")
    planned = other.json("apply", str(file), "--plan")
    assert {change["act"] for change in planned["changes"]} == {"import", "change", "create"}
    assert "sk-1" not in text
    assert other.json("model", "list") == []
    other.cli("apply", str(file))
    assert other.cli("export") == text
    assert other.json("apply", str(file), "--plan")["changes"] == []
    assert other.json("model", "settings", "smol")["settings"]["context"] == 1024


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
    told = own_house.run_cli("apply", "-", text=document)
    assert told.returncode == 1
    assert "removes deployment smol" in told.stderr
    assert "--yes" in told.stderr
    assert own_house.chat().status == 200
    own_house.cli("apply", "-", "--yes", text=document)
    eventually(lambda: own_house.chat(model="fresh").status == 200, "it answers")
    assert own_house.chat().status == 404


def test_doctor_finds_nothing_wrong_and_something_wrong(new_house: Make) -> None:
    house = new_house()
    assert house.json("doctor")["ok"] is True
    (house.home / "pepper").chmod(0o644)
    told = house.run_cli("doctor", "--json")
    assert told.returncode == 1
    assert json.loads(told.stdout)["ok"] is False
    assert "chmod 600" in told.stdout
    assert told.stderr == "freehold: 1 check failed\n"
    (house.home / "freehold.toml").write_text("[server]\nport = 'x'\n")
    told = house.run_cli("doctor")
    assert told.returncode == 1
    assert "server.port" in told.stdout


@pytest.mark.parametrize(
    "command",
    [("status",), ("model", "list"), ("export",), ("chat", "hi"), ("undeploy", "x")],
    ids=" ".join,
)  # fmt: skip
def test_looking_makes_no_home(tmp_path: Path, command: tuple[str, ...]) -> None:
    elsewhere = House(tmp_path / "none")
    told = elsewhere.run_cli(*command)
    assert told.returncode == 1
    assert told.stderr.startswith("freehold: there is no Freehold in ")
    assert told.stderr.count("\n") == 1
    assert not elsewhere.home.exists()


def test_down_and_doctor_make_no_home(tmp_path: Path) -> None:
    elsewhere = House(tmp_path / "none")
    assert elsewhere.json("down")["stopped"] is False
    elsewhere.run_cli("doctor")
    assert not elsewhere.home.exists()


def test_doctor_says_of_a_home_that_cannot_be_that_it_cannot(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    told = House(file / "home").run_cli("doctor")
    assert told.returncode == 1
    assert "cannot be made" in told.stdout
    assert "Traceback" not in told.stderr


def test_doctor_looks_at_the_port_that_is_in_use(house: House) -> None:
    found = {each["check"]: each["text"] for each in house.json("doctor")["findings"]}
    assert found["port"] == f"{house.url} is ours"


def test_answers_come_while_control_is_dead(own_house: House) -> None:
    own_house.kill_control()
    assert own_house.json("chat", "hi", "--max-tokens", "2")["deployment"] == "smol"
    assert "control is gone" in own_house.run_cli("status").stderr


def test_chat_says_what_the_answer_does_not_tell(own_house: House) -> None:
    own_house.cli("deploy", "--url", "http://127.0.0.1:9/v1", "--as", "away", "--fallback", "smol")
    told = own_house.run_cli("chat", "Tell a story.", "--model", "away", "--max-tokens", "3")
    assert told.returncode == 0
    assert "smol answered: away could not" in told.stderr
    assert "cut: the most tokens" in told.stderr


def test_the_same_question_brings_the_same_answer(house: House) -> None:
    ask = ("chat", "What is the capital of France?", "--temperature", "0", "--max-tokens", "30")
    assert "Paris" in house.cli(*ask)
    assert house.cli(*ask) == house.cli(*ask)
    assert house.json(*ask, "--system", "")["usage"]["prompt_tokens"] > 0


def test_a_key_tells_its_end_and_usage_its_user(house: House) -> None:
    told = house.run_cli("key", "create", "--principal", "ending", "--expires", "12h")
    assert " UTC; it is not shown again" in told.stderr
    key = told.stdout.strip()
    request = house.chat(key=key).headers["x-freehold-request"]
    assert "ending" in house.cli("usage")
    shown = house.json("audit", "list", "--id", request)["records"]
    assert [record["principal"] for record in shown] == ["ending"]
    assert request in house.cli("audit", "list", "--principal", "ending")


def test_names_are_completed_from_the_home(house: House) -> None:
    def completed(words: str, at: int) -> list[str]:
        asked = {"_FREEHOLD_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(at)}
        code = "from freehold.cli.main import cli; cli(prog_name='freehold')"
        ran = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False,
            env={**os.environ, **asked, "FREEHOLD_HOME": str(house.home)},
        )  # fmt: skip
        return [line.partition(",")[2] for line in ran.stdout.splitlines() if line]

    assert completed("freehold und", 1) == ["undeploy"]
    assert "smol" in completed("freehold undeploy s", 2)
    assert "smol:production" in completed("freehold deploy smol:", 2)
    assert completed("freehold undeploy zz", 2) == []


def test_help_imports_no_house() -> None:
    code = "import sys; from freehold.cli.main import cli; cli(['--help'], standalone_mode=False); "
    code += "sys.exit(any(m in sys.modules for m in ('sqlalchemy', 'psutil', 'pyreqwest')))"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_bytes_that_are_not_where_a_document_has_them(new_house: Make, tmp_path: Path) -> None:
    away, kept = tmp_path / "away.gguf", tmp_path / "kept.gguf"
    for file in (away, kept):
        file.write_bytes(gguf())
    house = new_house(empty=True)
    house.cli("model", "import", str(away), "--name", "mine", "--licence", "MIT", "--base", "llama")
    document = house.cli("export")
    digest = house.json("model", "show", "mine")["versions"][0]["digest"]
    away.unlink()
    other = new_house(empty=True, name="other")
    told = other.run_cli("apply", "-", text=document)
    assert told.returncode == 1
    assert f"mine needs the bytes of sha256:{digest}" in told.stderr
    assert other.json("model", "list") == []
    other.cli("model", "import", str(kept), "--name", "theirs")
    other.cli("apply", "-", text=document)
    assert document.split("\n\n")[0] in other.cli("export")
    found = other.json("model", "show", "mine")["versions"][0]
    assert (found["digest"], found["licence"], found["lineage"]) == (digest, "MIT", ["llama"])


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ("model = 'none'", "no model 'none'"),
        ("model = 'smol'\ncontext = 999999", "context 999999 is over"),
        ("model = 'smol'\nfallbacks = ['z']", "no deployment 'z' to fall back to"),
    ],
)
def test_a_document_that_could_not_be_made_so_is_refused(
    house: House, fields: str, says: str
) -> None:
    text = f"[[deployments]]\nname = 'smol'\nmodel = 'smol'\n[[deployments]]\nname = 'x'\n{fields}"
    for more in (("--plan",), ()):
        told = house.run_cli("apply", "-", *more, text=text)
        assert told.returncode == 1
        assert says in told.stderr
    assert len(house.call("GET", "/api/deployments").json) == 1


def test_settings_are_json_all_the_way(own_house: House) -> None:
    own_house.cli("model", "settings", "smol", "--slots", "2")
    found = own_house.json("model", "settings", "smol")
    assert found["revisions"][-1]["settings"]["slots"] == 2
    assert own_house.json("undeploy", "smol")["state"] == "removed"
