"""Models to registries and back, signed, described: with the clients that people have."""

import hashlib
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from freehold.cli.main import cli
from freehold.errors import FreeholdError
from freehold.store.blobs import measure
from tests.house import House, eventually
from tests.make_gguf import gguf
from tests.registries import (
    clean_environment,
    digest,
    docker_registry,
    hostile,
    layer,
    manifest,
    needs,
)
from tests.servers import reply
from tests.unit.models.test_signing import make_key

MODEL = gguf(
    {"general.architecture": "llama", "general.license": "apache-2.0", "general.name": "Tiny"}
)
CARD = "# Tiny\n\nMade for a test. Äöü.\n"


@dataclass
class Ran:
    """What a command ended with."""

    returncode: int
    stdout: str
    stderr: str


@dataclass
class Desk:
    """A home on which nothing runs: the command line does the work itself, in this process."""

    home: Path

    def run_cli(self, *arguments: str) -> Ran:
        with warnings.catch_warnings():
            result = CliRunner().invoke(
                cli, [*arguments, "--home", str(self.home)], standalone_mode=False
            )
        error = result.exception
        if isinstance(error, FreeholdError):
            return Ran(1, result.stdout, result.stderr + error.message)
        if error is not None:
            raise error
        return Ran(0, result.stdout, result.stderr)

    def cli(self, *arguments: str) -> str:
        done = self.run_cli(*arguments)
        assert done.returncode == 0, (arguments, done)
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.cli(*arguments, "--json"))


def house(home: Path, settings: str = "") -> Desk:
    home.mkdir(exist_ok=True)
    (home / "freehold.toml").write_text(settings)
    return Desk(home)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "tiny"
    made.mkdir()
    (made / "tiny.gguf").write_bytes(MODEL)
    (made / "README.md").write_text(CARD)
    return made


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    place = tmp_path / "registry"
    place.mkdir()
    with docker_registry(place) as host:
        yield host


def ran(*arguments: str, cwd: Path | None = None) -> str:
    done = subprocess.run(
        arguments, cwd=cwd, capture_output=True, text=True, check=False, env=clean_environment()
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


def oras_pull(target: str, place: Path) -> None:
    code = (
        "import sys, oras.client; c = oras.client.OrasClient(insecure=True);"
        "c.pull(target=sys.argv[1], outdir=sys.argv[2], allowed_media_type=[])"
    )
    ran(sys.executable, "-c", code, target, str(place))


def test_a_version_is_pushed_as_modelpack_and_others_read_it(
    tmp_path: Path, folder: Path, registry: str
) -> None:
    needs("skopeo")
    own = house(tmp_path / "home")
    own.json("model", "import", str(folder))
    first = own.json("model", "push", "tiny", f"oci://{registry}/models/tiny:v1")
    raw = ran("skopeo", "inspect", "--raw", "--tls-verify=false",
              f"docker://{registry}/models/tiny:v1")  # fmt: skip
    assert digest(raw.encode()) == first["digest"]
    found = json.loads(raw)
    assert found["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    assert [each["mediaType"] for each in found["layers"]] == [
        "application/vnd.cncf.model.weight.v1.raw", "application/vnd.cncf.model.doc.v1.raw",
    ]  # fmt: skip
    config = json.loads(ran("skopeo", "inspect", "--raw", "--config", "--tls-verify=false",
                            f"docker://{registry}/models/tiny:v1"))  # fmt: skip
    assert set(config) == {"descriptor", "config", "modelfs"}
    assert config["descriptor"]["licenses"] == ["apache-2.0"]
    assert config["config"]["format"] == "gguf"
    assert config["modelfs"]["diffIds"] == [each["digest"] for each in found["layers"]]
    (tmp_path / "pulled").mkdir()
    oras_pull(f"{registry}/models/tiny:v1", tmp_path / "pulled")
    assert (tmp_path / "pulled" / "model.gguf").read_bytes() == MODEL
    assert (tmp_path / "pulled" / "README.md").read_text() == CARD
    # Again is the same bytes, and nothing is sent twice.
    assert own.json("model", "push", "tiny", f"oci://{registry}/models/tiny:v1") == first
    # And back, elsewhere: with its card, its licence, and its lineage by digest.
    other = house(tmp_path / "other")
    result = other.json("model", "import", f"oci://{registry}/models/tiny:v1")
    assert result["digest"] == hashlib.sha256(MODEL).hexdigest()
    shown = other.json("model", "show", "tiny")["versions"][0]
    assert shown["resolved"] == f"oci://{registry}/models/tiny@{first['digest']}"
    assert other.json("model", "card", "tiny")["text"] == CARD


def test_a_pushed_artifact_survives_skopeo_byte_for_byte(
    tmp_path: Path, folder: Path, registry: str
) -> None:
    needs("skopeo")
    own = house(tmp_path / "home")
    own.json("model", "import", str(folder))
    pushed = own.json("model", "push", "tiny:1", f"oci://{registry}/tiny")
    assert pushed["target"].endswith("/tiny:1")
    ran("skopeo", "copy", "--src-tls-verify=false", f"docker://{registry}/tiny:1",
        f"dir:{tmp_path / 'dir'}")  # fmt: skip
    blob = tmp_path / "dir" / hashlib.sha256(MODEL).hexdigest()
    assert blob.read_bytes() == MODEL
    ran("skopeo", "copy", "--dest-tls-verify=false", f"dir:{tmp_path / 'dir'}",
        f"docker://{registry}/again:1")  # fmt: skip
    raw = ran("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{registry}/again:1")
    assert digest(raw.encode()) == pushed["digest"]


@pytest.mark.parametrize(
    ("target", "says"),
    [("registry/x", "write oci://"), ("oci://h/r@sha256:" + "0" * 64, "push to a tag"),
     ("oci://127.0.0.1:9/r:x", "cannot reach"), ("oci://h/R", "names no artifact")],
)  # fmt: skip
def test_pushes_that_cannot_be(tmp_path: Path, folder: Path, target: str, says: str) -> None:
    own = house(tmp_path / "home", "[sources]\ntimeout = 2\n")
    own.json("model", "import", str(folder))
    failed = own.run_cli("model", "push", "tiny", target)
    assert (failed.returncode, says in failed.stderr) == (1, True), failed.stderr


@pytest.mark.parametrize("at", ["HEAD", "POST", "PATCH", "PUT"])
def test_a_push_to_a_registry_that_stalls_ends(tmp_path: Path, folder: Path, at: str) -> None:
    own = house(tmp_path / "home", "[sources]\ntimeout = 0.4\n")
    own.json("model", "import", str(folder))
    with hostile() as made:

        def takes(request: BaseHTTPRequestHandler) -> bool:
            """Whatever is sent, until it is time to say nothing more."""
            if request.command == at:
                time.sleep(1.2)
                request.close_connection = True
                return True
            request.rfile.read(int(request.headers.get("content-length") or 0))
            status = {"HEAD": 404, "POST": 202, "PATCH": 202, "GET": 204}.get(request.command, 201)
            reply(request, status, b"", {"location": f"{made.url}/v2/m/blobs/uploads/1"})
            return True

        made.extra = takes
        begun = time.monotonic()
        failed = own.run_cli("model", "push", "tiny", f"oci://{made.host}/m:v1")
    assert failed.returncode == 1
    assert "again" in failed.stderr, failed.stderr
    assert time.monotonic() - begun < 40


def test_nothing_of_a_bad_artifact_becomes_a_version(tmp_path: Path) -> None:
    own = house(tmp_path / "home")
    with hostile() as made:
        bad = made.add(MODEL[:-1] + b"X" * 100)
        made.push("v1", manifest(layer(bad, "m.gguf"), layer(made.add(b"x"), "../../evil")))
        failed = own.run_cli("model", "import", f"oci://{made.host}/m:v1")
        assert (failed.returncode, "a plain relative name" in failed.stderr) == (1, True)
        made.push("v1", manifest(layer(made.add(b"GGUF but not really"), "m.gguf")))
        assert own.run_cli("model", "import", f"oci://{made.host}/m:v1").returncode == 1
    assert own.json("model", "list") == []
    assert [p for p in (own.home / "blobs").rglob("*") if p.is_file()] == []
    assert not any((own.home / "scratch").glob("*/*"))


def test_a_model_is_signed_here_and_its_signature_travels(tmp_path: Path, folder: Path) -> None:
    pytest.importorskip("model_signing")
    own = house(tmp_path / "home")
    own.json("model", "import", str(folder))
    key = make_key(tmp_path)
    out = tmp_path / "tiny.sig"
    signed = own.json("model", "sign", "tiny", "--key", str(key), "--out", str(out))
    assert (signed["signer"], "not trusted" in signed["reason"]) == (None, True)
    failed = own.run_cli("model", "verify", "tiny", "--signed")
    assert (failed.returncode, "not trusted here" in failed.stderr) == (1, True)
    public = str(tmp_path / "k.pub")
    assert own.json("model", "verify", "tiny", "--trust-key", public)["signer"].endswith("(k.pub)")
    # What does not count here is seen, too, and each refusal says what to do about this one.
    assert "not trusted here" in own.cli("model", "show", "tiny")
    assert "that-does-not-count" in own.cli("model", "bom", "tiny")
    again = own.cli("model", "sign", "tiny", "--key", str(key))
    assert "[signing]" in again
    assert "freehold model verify tiny:1 --trust-key" in again
    (tmp_path / "others").mkdir()
    make_key(tmp_path / "others")
    for given, says in ((tmp_path / "others" / "k.pub", "of who signed it"),
                        (key, "is a private key")):  # fmt: skip
        failed = own.run_cli("model", "verify", "tiny", "--trust-key", str(given))
        assert (failed.returncode, says in failed.stderr) == (1, True), failed.stderr
        assert "sign it with" not in failed.stderr
    (own.home / "freehold.toml").write_text(f"[signing]\nkeys = ['{public}']\n")
    assert own.json("model", "verify", "tiny", "--signed")["signer"]
    shown = own.json("model", "show", "tiny")["versions"][0]["signatures"]
    assert [each["signer"] is not None for each in shown] == [True, True]
    # The real package reads what we wrote, over the file under the name it has here.
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "model.gguf").write_bytes(MODEL)
    ran(sys.executable, "-W", "ignore", "-m", "model_signing", "verify", "key",
        "--signature", str(out), "--public_key", public, str(plain))  # fmt: skip
    # A flipped bit in the stored file is found, signed or not.
    blob = next(path for path in (own.home / "blobs" / "sha256").rglob("*") if path.is_file())
    blob.chmod(0o644)
    blob.write_bytes(MODEL[:-1] + b"\1")
    assert own.run_cli("model", "verify", "tiny", "--signed").returncode == 1


def test_where_signatures_are_required_nothing_else_comes_in(tmp_path: Path, folder: Path) -> None:
    pytest.importorskip("model_signing")
    key = make_key(tmp_path)
    make_key(tmp_path, name="other")
    own = house(tmp_path / "home", f"[signing]\nrequired = true\nkeys = ['{tmp_path / 'k.pub'}']\n")
    failed = own.run_cli("model", "import", str(folder))
    assert (failed.returncode, "it has no signature" in failed.stderr) == (1, True), failed.stderr
    sign = (sys.executable, "-W", "ignore", "-m", "model_signing", "sign", "key")
    ran(*sign, "--signature", str(tmp_path / "wrong.sig"), "--private_key",
        str(tmp_path / "other.pem"), str(folder))  # fmt: skip
    failed = own.run_cli("model", "import", str(folder), "--signature", str(tmp_path / "wrong.sig"))
    assert (failed.returncode, "not trusted here" in failed.stderr) == (1, True), failed.stderr
    assert own.json("model", "list") == []
    assert [p for p in (own.home / "blobs").rglob("*") if p.is_file()] == []
    # One that lies beside the file is found there.
    ran(*sign, "--signature", str(folder / "model.sig"), "--private_key", str(key), str(folder))
    assert own.json("model", "import", str(folder))["new"]
    listed = own.json("model", "verify", "tiny", "--signed")
    assert listed["signer"].endswith("(k.pub)")


def test_an_unsigned_version_is_not_loaded_where_signatures_are_required(
    tmp_path: Path, weights: Path
) -> None:
    desk = house(tmp_path / "home")
    desk.json("model", "import", str(weights), "--name", "smol")
    desk.cli("deploy", "smol")
    own = House(desk.home)
    key = make_key(tmp_path)
    (own.home / "freehold.toml").write_text(
        f"[signing]\nrequired = true\nkeys = ['{tmp_path / 'k.pub'}']\n"
    )
    own.start(wait=False)
    try:

        def reason() -> str | None:
            try:
                replicas: list[dict[str, Any]] = own.replicas()
                shown = json.dumps([replicas, own.deployment()])
            except (OSError, KeyError, FileNotFoundError):
                return None
            return shown if "signed by anybody" in shown else None

        eventually(reason, "the reason is shown")
        assert own.chat().status == 503
        refused = own.call("PUT", "/api/deployments/two", {"name": "two", "model": "smol"})
        assert (refused.status, refused.error["code"]) == (403, "forbidden.unsigned")
        own.json("model", "sign", "smol", "--key", str(key))
        eventually(lambda: own.chat().status == 200, "loaded once it is signed")
    finally:
        own.close()


def test_the_bill_of_materials_is_valid_cyclonedx(tmp_path: Path, folder: Path) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    own = house(tmp_path / "home")
    odd = tmp_path / "ödd name #1%"
    folder.rename(odd)
    own.json("model", "import", str(odd), "--name", "tiny", "--base", "some/base model")
    text = own.cli("model", "bom", "tiny")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    found = json.loads(text)
    model = found["metadata"]["component"]
    assert model["type"] == "machine-learning-model"
    assert model["hashes"] == [{"alg": "SHA-256", "content": measure(odd / "tiny.gguf")[0]}]
    assert model["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert model["pedigree"]["ancestors"][0]["name"] == "some/base model"
    assert found == own.json("model", "bom", "tiny:1")


def test_the_chat_template_of_a_version_is_printed(tmp_path: Path) -> None:
    own = house(tmp_path / "home")
    text = "{{ messages[0]['content'] }}\n\x1b[2Jä"
    fields = {"general.architecture": "llama", "tokenizer.chat_template": text}
    for name, data in (("chat", gguf(fields)), ("bare", MODEL)):
        (tmp_path / "x.gguf").write_bytes(data)
        own.json("model", "import", str(tmp_path / "x.gguf"), "--name", name)
    told = own.json("model", "show", "chat:1", "--template")
    digest_ = hashlib.sha256(text.encode()).hexdigest()
    assert told == {"version": "chat:1", "sha256": digest_, "template": text}
    printed = own.cli("model", "show", "chat", "--template")
    assert printed == text.replace("\x1b", "\\x1b") + "\n"
    assert digest_[:12] in own.cli("model", "show", "chat")
    for arguments, says in (
        (("show", "bare:7"), "bare has no version 7: there is 1, and production"),
        (("import", str(tmp_path / "x.gguf"), "--sha256", "abc"), "64 hexadecimal digits"),
        (("import", "s3://x/y"), "at least two"),
    ):
        failed = own.run_cli("model", *arguments)
        assert (failed.returncode, says in failed.stderr) == (1, True), failed.stderr
    failed = own.run_cli("model", "show", "bare", "--template")
    assert (failed.returncode, "no chat template" in failed.stderr) == (1, True)


def test_model_cards_are_kept_shown_and_changed(tmp_path: Path, folder: Path) -> None:
    own = house(tmp_path / "home")
    own.json("model", "import", str(folder / "tiny.gguf"), "--name", "bare")
    failed = own.run_cli("model", "card", "bare")
    assert (failed.returncode, "without a model card" in failed.stderr) == (1, True)
    own.cli("model", "card", "bare", "--set", str(folder / "README.md"))
    assert own.cli("model", "card", "bare").strip() == CARD.strip()
    (tmp_path / "big.md").write_text("x" * 300_000)
    failed = own.run_cli("model", "card", "bare", "--set", str(tmp_path / "big.md"))
    assert (failed.returncode, "at most 262144 bytes" in failed.stderr) == (1, True)


def test_a_version_is_pulled_from_another_freehold(own_house: House, tmp_path: Path) -> None:
    host = own_house.url.removeprefix("http://")
    key = tmp_path / "key"
    key.write_text(own_house.make_key("developer"))
    other = house(tmp_path / "other", f"[sources.hosts.'{host}']\npassword = 'file:{key}'\n")
    result = other.json("model", "import", f"freehold://{host}/smol")
    shown = own_house.call("GET", "/api/models/smol").json["versions"][0]
    assert (result["model"], result["digest"]) == ("smol", shown["digest"])
    assert other.json("model", "verify", "smol")["digests"] == [shown["digest"]]
    resolved = other.json("model", "show", "smol")["versions"][0]["resolved"]
    assert resolved.startswith(f"freehold://{host}/smol@sha256:")
    # A signature made later comes along, to a version that is there already, too; whether it
    # counts is decided where it comes to.
    signer = make_key(tmp_path)
    own_house.cli("model", "sign", "smol", "--key", str(signer))
    for source in (f"freehold://{host}/smol", f"oci://{host}/smol:1"):
        other.json("model", "import", source, "--name", "smol")
        failed = other.run_cli("model", "verify", "smol", "--signed")
        assert (failed.returncode, "not trusted here" in failed.stderr) == (1, True), failed.stderr
        verified = other.json("model", "verify", "smol", "--trust-key", str(tmp_path / "k.pub"))
        assert verified["signer"].endswith("(k.pub)")
        other.json("model", "remove", "smol", "--yes")
    for text, says in {
        f"freehold://{host}/smol:9": "has no smol:9", f"freehold://{host}/none": "has no none",
        f"freehold://{host}/a/b:1": "is no model's name",
    }.items():  # fmt: skip
        failed = other.run_cli("model", "import", text)
        assert (failed.returncode, says in failed.stderr) == (1, True), failed.stderr
    key.write_text("fh-wrong")
    failed = other.run_cli("model", "import", f"freehold://{host}/smol", "--name", "again")
    assert (failed.returncode, "check the password" in failed.stderr) == (1, True), failed.stderr
    assert "fh-wrong" not in failed.stderr
