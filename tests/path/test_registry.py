"""Our own registry at ``/v2/``: with the clients that people have, and with bare requests."""

import base64
import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.house import Answer, House, eventually
from tests.make_gguf import gguf
from tests.registries import MANIFEST, clean_environment, digest, layer, manifest, needs

MODEL = gguf({"general.architecture": "llama", "general.name": "pushed"})
DIGEST = digest(MODEL)
WEIGHT = "application/vnd.cncf.model.weight.v1.raw"


def basic(key: str, user: str = "anybody") -> str:
    return "Basic " + base64.b64encode(f"{user}:{key}".encode()).decode()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house of its own with two gateways and nothing deployed."""
    home = tmp_path_factory.mktemp("registry") / "home"
    made = House(home, ("--workers", "2"))
    try:
        yield made.start()
    finally:
        made.close()


def ask(house: House, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return house.call(method, path, body, headers=named)


def upload(house: House, name: str, data: bytes, **headers: str) -> Answer:
    """Push a blob in one request."""
    return ask(house, "POST", f"/v2/{name}/blobs/uploads/?digest={digest(data)}", data, **headers)


def push(house: House, name: str, tag: str, data: bytes, kind: str = MANIFEST) -> Answer:
    return ask(house, "PUT", f"/v2/{name}/manifests/{tag}", data, content_type=kind)


def push_model(house: House, name: str, tag: str = "v1", model: bytes = MODEL) -> bytes:
    assert upload(house, name, b"{}").status == 201
    assert upload(house, name, model).status == 201
    made = manifest(layer(model, "m.gguf", WEIGHT))
    answer = push(house, name, tag, made)
    assert answer.status == 201, answer.body
    return made


def code(answer: Answer) -> str:
    found: str = answer.json["errors"][0]["code"]
    return found


def test_a_pushed_model_is_a_version_and_reads_back(served: House) -> None:
    made = push_model(served, "pushed")
    shown = served.call("GET", "/api/models/pushed").json["versions"]
    assert [each["digest"] for each in shown] == [hashlib.sha256(MODEL).hexdigest()]
    assert shown[0]["resolved"] == f"pushed:pushed@{digest(made)}"
    for label in ("v1", digest(made), "1", "production"):
        answer = ask(served, "GET", f"/v2/pushed/manifests/{label}")
        assert (answer.status, answer.body) == (200, made)
        assert answer.headers["docker-content-digest"] == digest(made)
        assert answer.headers["content-type"] == MANIFEST
    answer = ask(served, "GET", f"/v2/pushed/blobs/{DIGEST}")
    assert (answer.status, answer.body) == (200, MODEL)
    assert ask(served, "GET", "/v2/pushed/tags/list").json == {
        "name": "pushed", "tags": ["1", "production", "v1"],
    }  # fmt: skip
    assert "pushed" in ask(served, "GET", "/v2/_catalog").json["repositories"]
    # The same again, under another tag and another manifest, is the same version.
    other = manifest(layer(MODEL, "other.gguf", WEIGHT))
    assert push(served, "pushed", "v2", other).headers["x-freehold-version"] == "1"
    assert ask(served, "GET", "/v2/pushed/manifests/v2").body == other
    assert ask(served, "GET", "/v2/pushed/manifests/1").body == made


def test_head_and_ranges(served: House) -> None:
    push_model(served, "pushed")
    path = f"/v2/pushed/blobs/{DIGEST}"
    head = ask(served, "HEAD", path)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(MODEL))
    head = ask(served, "HEAD", "/v2/pushed/manifests/v1")
    assert head.headers["content-length"] == str(
        len(ask(served, "GET", "/v2/pushed/manifests/v1").body)
    )
    for text, part in {"bytes=5-": MODEL[5:], "bytes=0-0": MODEL[:1], "bytes=-7": MODEL[-7:],
                       "bytes=2-4": MODEL[2:5], "bytes=0-99999999": MODEL}.items():  # fmt: skip
        answer = ask(served, "GET", path, range=text)
        assert (answer.status, answer.body) == (206, part), text
    assert ask(served, "GET", path, range="bytes=99999999-").status == 416
    assert ask(served, "GET", path, range="bytes=x").body == MODEL


def test_uploads_in_chunks_go_on_in_order(served: House) -> None:
    begun = ask(served, "POST", "/v2/chunks/blobs/uploads/")
    place = begun.headers["location"]
    assert (begun.status, begun.headers["range"]) == (202, "0-0")
    third = len(MODEL) // 3
    first = ask(served, "PATCH", place, MODEL[:third], content_range=f"0-{third - 1}")
    assert (first.status, first.headers["range"]) == (202, f"0-{third - 1}")
    assert ask(served, "PATCH", place, MODEL[:9], content_range="5-13").status == 416
    assert ask(served, "GET", place).headers["range"] == f"0-{third - 1}"
    assert ask(served, "PATCH", place, MODEL[third : 2 * third]).status == 202
    assert ask(served, "HEAD", f"/v2/chunks/blobs/{DIGEST}").status == 404
    done = ask(served, "PUT", f"{place}?digest={DIGEST}", MODEL[2 * third :])
    assert (done.status, done.headers["docker-content-digest"]) == (201, DIGEST)
    assert ask(served, "GET", done.headers["location"]).body == MODEL
    assert code(ask(served, "GET", place)) == "BLOB_UPLOAD_UNKNOWN"


def test_what_waits_to_be_a_version_counts_as_well(new_house: Callable[..., House]) -> None:
    settings = '[registry]\nquota = 100000\nquotas = {"principal:eve" = 5000}\n'
    house = new_house(empty=True, settings=settings).start()
    assert upload(house, "m", bytes(60_000)).status == 201
    refused = upload(house, "m", bytes(50_000))
    assert (refused.status, code(refused)) == (413, "SIZE_INVALID")
    assert upload(house, "m", bytes(30_000)).status == 201
    eve = house.call("POST", "/api/keys", {"principal": "eve", "role": "operator"}).json["key"]
    path = f"/v2/m/blobs/uploads/?digest={digest(bytes(6000))}"
    assert house.call("POST", path, bytes(6000), key=eve).status == 413
    assert ask(house, "POST", path, bytes(6000)).status == 201


def test_other_bytes_than_the_digest_are_not_kept(served: House) -> None:
    wrong = digest(b"something else")
    answer = ask(served, "POST", f"/v2/wrong/blobs/uploads/?digest={wrong}", MODEL)
    assert (answer.status, code(answer)) == (400, "DIGEST_INVALID")
    assert ask(served, "GET", f"/v2/wrong/blobs/{wrong}").status == 404
    for odd in ("sha512:" + "0" * 128, "sha256:xyz", "../../etc/passwd", ""):
        answer = ask(served, "POST", f"/v2/wrong/blobs/uploads/?digest={odd}", MODEL)
        assert (answer.status, code(answer)) == (400, "DIGEST_INVALID"), odd
    begun = ask(served, "POST", "/v2/wrong/blobs/uploads/").headers["location"]
    # What gateways say of bytes to control, no client can.
    claimed = {"x_freehold_hashed": f"{len(MODEL)}:{wrong[7:]}", "x_freehold_step": "done"}
    answer = ask(served, "PUT", f"{begun}?digest={wrong}", MODEL, **claimed)
    assert (answer.status, code(answer)) == (400, "DIGEST_INVALID")
    assert ask(served, "DELETE", begun).status == 404


def test_an_upload_that_breaks_off_goes_on(served: House) -> None:
    data = os.urandom(5_000_000)
    place = ask(served, "POST", "/v2/broken/blobs/uploads/").headers["location"]
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as line:
        head = (
            f"PATCH {place} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {served.key}\r\n"
            f"content-length: {len(data)}\r\n\r\n"
        )
        line.sendall(head.encode() + data[:3_000_000])
    eventually(lambda: _have(served, place) >= 1_000_000, "some of it")
    eventually(lambda: _settled(served, place), "no writer any more")
    have = _have(served, place)
    assert have < len(data)
    assert (
        ask(served, "PATCH", place, data[have:], content_range=f"{have}-{len(data) - 1}").status
        == 202
    )
    assert ask(served, "PUT", f"{place}?digest={digest(data)}").status == 201
    assert ask(served, "GET", f"/v2/broken/blobs/{digest(data)}").body == data


def _have(served: House, place: str) -> int:
    last = ask(served, "GET", place).headers["range"].partition("-")[2]
    return int(last) + 1 if last != "0" else 0


def _settled(served: House, place: str) -> bool:
    before = _have(served, place)
    import time

    time.sleep(0.3)
    return _have(served, place) == before


@pytest.mark.parametrize(
    ("tag", "made", "expected", "status"),
    [
        ("v9", manifest(layer(b"not there", "m.gguf", WEIGHT)), "MANIFEST_BLOB_UNKNOWN", 400),
        ("v9", manifest(layer(MODEL, "m.gguf", WEIGHT, size=3)), "MANIFEST_INVALID", 400),
        ("v9", manifest(layer(MODEL, "../m.gguf", WEIGHT)), "MANIFEST_INVALID", 400),
        ("v9", manifest(layer(MODEL, "m.txt", "text/plain")), "MANIFEST_INVALID", 400),
        ("v9", b"{}", "MANIFEST_INVALID", 400),
        ("v9", b"[" * 50_000, "MANIFEST_INVALID", 400),
        ("7", manifest(layer(MODEL, "m.gguf", WEIGHT)), "MANIFEST_INVALID", 400),
        ("production", manifest(layer(MODEL, "m.gguf", WEIGHT)), "DENIED", 409),
        ("sha256:" + "0" * 64, manifest(layer(MODEL, "m.gguf", WEIGHT)), "DIGEST_INVALID", 400),
    ],
)
def test_manifests_that_are_refused(
    served: House, tag: str, made: bytes, expected: str, status: int
) -> None:
    push_model(served, "pushed")
    answer = push(served, "pushed", tag, made)
    assert (answer.status, code(answer)) == (status, expected), answer.body
    assert ask(served, "GET", "/v2/pushed/manifests/v9").status == 404
    assert len(served.call("GET", "/api/models/pushed").json["versions"]) == 1


def test_a_model_that_does_not_pass_the_scan_is_never_visible(served: House) -> None:
    bad = MODEL[:-10]
    for data in (b"{}", bad):
        assert upload(served, "evil", data).status == 201
    answer = push(served, "evil", "v1", manifest(layer(bad, "m.gguf", WEIGHT)))
    assert (answer.status, code(answer)) == (400, "MANIFEST_INVALID"), answer.body
    assert ask(served, "GET", "/v2/evil/manifests/v1").status == 404
    assert code(ask(served, "GET", "/v2/evil/tags/list")) == "NAME_UNKNOWN"
    assert served.call("GET", "/api/models/evil").status == 404


def test_what_is_in_quarantine_is_not_served(served: House) -> None:
    template = "{{ ''.__class__ }}"
    bad = gguf({"general.architecture": "llama", "tokenizer.chat_template": template})
    push_model(served, "held", model=bad)
    assert served.call("GET", "/api/models/held").json["versions"][0]["quarantine"]["open"]
    blob = f"/v2/held/blobs/{digest(bad)}"
    for method, headers in (("GET", {}), ("HEAD", {}), ("GET", {"range": "bytes=0-3"})):
        answer = ask(served, method, blob, **headers)
        assert answer.status == 403, method
        assert bad[:4] not in answer.body
    answer = ask(served, "GET", blob)
    assert (code(answer), "quarantine" in answer.json["errors"][0]["message"]) == ("DENIED", True)
    # Nor by way of another repository, nor to another registry.
    mount = f"/v2/other/blobs/uploads/?mount={digest(bad)}&from=held"
    assert ask(served, "POST", mount).status == 403
    assert ask(served, "GET", f"/v2/other/blobs/{digest(bad)}").status == 404
    failed = served.run_cli("model", "push", "held:1", "oci://127.0.0.1:9/held:v1")
    assert (failed.returncode, "quarantine" in failed.stderr) == (1, True), failed.stderr
    # Two people may release it: then it is like any other.
    path = "/api/models/held/versions/1/release"
    one, other = (served.make_key("admin", principal=name) for name in ("ann", "bob"))
    for reason, key in ((" our own", one), ("", other)):
        assert served.call("POST", path, {"reason": reason}, key=key).status == 200
    assert ask(served, "GET", blob).body == bad


def test_imported_versions_are_artifacts_too(served: House, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "m.gguf").write_bytes(gguf({"general.architecture": "gemma3"}))
    (tmp_path / "t" / "README.md").write_text("# hello")
    served.json("model", "import", str(tmp_path / "t"), "--name", "imported")
    answer = ask(served, "GET", "/v2/imported/manifests/1")
    found = answer.json
    assert ask(served, "GET", f"/v2/imported/manifests/{digest(answer.body)}").body == answer.body
    for each in (found["config"], *found["layers"]):
        blob = ask(served, "GET", f"/v2/imported/blobs/{each['digest']}")
        assert (digest(blob.body), len(blob.body)) == (each["digest"], each["size"])
    assert served.call("DELETE", "/api/models/imported").status == 200
    assert ask(served, "GET", "/v2/imported/manifests/1").status == 404


def test_what_a_removal_takes_is_gone_here_too(served: House) -> None:
    other = gguf({"general.architecture": "llama", "general.name": "gone"})
    made = push_model(served, "gone", model=other)
    assert served.call("DELETE", "/api/models/gone").status == 200
    for label in ("v1", digest(made), "1"):
        assert ask(served, "GET", f"/v2/gone/manifests/{label}").status == 404
    assert ask(served, "GET", f"/v2/gone/blobs/{digest(other)}").status == 404
    push_model(served, "gone", model=other)
    answer = ask(served, "DELETE", f"/v2/gone/manifests/{digest(made)}")
    assert (answer.status, code(answer)) == (409, "DENIED")
    assert ask(served, "DELETE", "/v2/gone/manifests/v1").status == 202
    assert ask(served, "GET", "/v2/gone/manifests/v1").status == 404
    assert ask(served, "GET", f"/v2/gone/manifests/{digest(made)}").status == 200


def test_blobs_are_mounted_from_where_one_may_read(served: House) -> None:
    push_model(served, "pushed")
    mount = f"/v2/mounted/blobs/uploads/?mount={DIGEST}&from="
    assert ask(served, "POST", mount + "pushed").status == 201
    assert ask(served, "GET", f"/v2/mounted/blobs/{DIGEST}").body == MODEL
    assert ask(served, "POST", mount + "nowhere").status == 202
    assert ask(served, "GET", f"/v2/elsewhere/blobs/{DIGEST}").status == 404


def test_what_refers_to_a_model(served: House) -> None:
    made = push_model(served, "pushed")
    subject = {"mediaType": MANIFEST, "digest": digest(made), "size": len(made)}
    signature = b'{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json"}'
    assert upload(served, "pushed", signature).status == 201
    about = manifest(layer(signature), subject=subject, artifactType="application/vnd.sig")
    answer = push(served, "pushed", digest(about), about)
    assert (answer.status, answer.headers["oci-subject"]) == (201, digest(made))
    path = f"/v2/pushed/referrers/{digest(made)}"
    found = ask(served, "GET", path).json["manifests"]
    assert [each["digest"] for each in found] == [digest(about)]
    filtered = ask(served, "GET", f"{path}?artifactType=x")
    assert (filtered.json["manifests"], filtered.headers["oci-filters-applied"]) == (
        [], "artifactType",
    )  # fmt: skip
    assert ask(served, "GET", f"/v2/pushed/referrers/{digest(b'')}").json["manifests"] == []


def test_tags_come_in_pages(served: House) -> None:
    push_model(served, "pages", "a")
    for tag in ("b", "c"):
        push(served, "pages", tag, manifest(layer(MODEL, "m.gguf", WEIGHT)))
    seen: list[str] = []
    path = "/v2/pages/tags/list?n=2"
    while path:
        answer = ask(served, "GET", path)
        seen += answer.json["tags"]
        path = answer.headers.get("link", "").partition("<")[2].partition(">")[0]
    assert seen == ["1", "a", "b", "c", "production"]


def test_who_may(served: House) -> None:
    push_model(served, "pushed")
    reader, operator = served.make_key("developer"), served.make_key("operator")
    tags = "/v2/pushed/tags/list"
    begin = "/v2/pushed/blobs/uploads/"
    nobody = served.call("GET", "/v2/", key=None)
    assert (nobody.status, nobody.headers["www-authenticate"]) == (401, 'Basic realm="freehold"')
    assert code(nobody) == "UNAUTHORIZED"
    for wrong in ("Basic !!!", basic("fh-wrong"), "Bearer x", "Digest x"):
        assert served.call("GET", "/v2/", key=None, headers={"authorization": wrong}).status == 401
    assert (
        served.call("GET", "/v2/", key=None, headers={"authorization": basic(reader)}).status == 200
    )
    assert served.call("GET", tags, key=reader).status == 200
    denied = served.call("POST", begin, key=reader)
    assert (denied.status, code(denied)) == (403, "DENIED")
    assert served.call("POST", begin, key=operator).status == 202
    assert served.call("GET", tags, key=served.make_key("auditor")).status == 200


def test_a_repository_is_theirs_who_are_named_in_it(served: House) -> None:
    push_model(served, "secret")
    push_model(served, "open")
    named, other = (
        served.call("POST", "/api/keys", {"principal": who, "role": "developer"}).json["key"]
        for who in ("named", "other")
    )
    operator = served.make_key("operator")
    tags, begin = "/v2/secret/tags/list", "/v2/secret/blobs/uploads/"
    granted = served.json(
        "repository", "grant", "secret", "--to", "principal:named", "--access", "read"
    )
    assert granted["access"] == "read"
    assert served.call("GET", tags, key=named).status == 200
    assert served.call("POST", begin, key=named).status == 403
    for key in (other, operator):
        assert served.call("GET", tags, key=key).status == 403
        assert served.call("POST", begin, key=key).status == 403
        assert served.call("GET", f"/v2/secret/blobs/{DIGEST}", key=key).status == 403
        listed = served.call("GET", "/v2/_catalog", key=key).json["repositories"]
        assert ("open" in listed, "secret" in listed) == (True, False)
        mount = f"/v2/open/blobs/uploads/?mount={DIGEST}&from=secret"
        assert served.call("POST", mount, key=key).status == (403 if key == other else 202)
    served.json("repository", "grant", "secret", "--to", "principal:named", "--access", "write")
    assert served.call("POST", begin, key=named).status == 202
    assert ask(served, "GET", tags).status == 200  # an administrator
    assert len(served.json("repository", "grants")) == 1
    served.json("repository", "revoke", "secret", "--to", "principal:named")
    assert served.call("GET", tags, key=other).status == 200
    assert served.call("POST", begin, key=named).status == 403
    for subject, access in (("nobody", "read"), ("principal:x", "own"), ("user:x", "read")):
        assert served.run_cli(
            "repository", "grant", "a", "--to", subject, "--access", access
        ).returncode in (1, 2)


def test_the_open_inference_protocol_keeps_its_paths(served: House) -> None:
    assert served.call("GET", "/v2/health/live", key=None).status == 200
    assert served.call("GET", "/v2").json["name"] == "freehold"
    # A deployment could be called so, a repository cannot.
    for path in ("/v2/models/manifests/ready", "/v2/models/manifests", "/v2/models/x"):
        assert "errors" not in ask(served, "GET", path).json
    for path in (
        "/v2/health/manifests/x",
        "/v2/models/manifests/x",
        "/v2/models/blobs/uploads/x/y",
    ):
        assert ask(served, "GET", path).status == 404
    assert ask(served, "POST", "/v2/models/blobs/uploads/").status in (404, 405)


@pytest.mark.parametrize("path", ["/v2/a/b/tags/list", "/v2/Up/tags/list", "/v2/../tags/list",
                                  "/v2/%2e%2e%2f/tags/list", "/v2/a%00/tags/list"])  # fmt: skip
def test_names_that_no_model_has(served: House, path: str) -> None:
    assert ask(served, "GET", path).status in (400, 404)


def test_methods_that_are_not_there(served: House) -> None:
    answer = ask(served, "DELETE", f"/v2/pushed/blobs/{DIGEST}")
    assert (answer.status, code(answer)) == (405, "UNSUPPORTED")


def test_only_gateways_are_told_where_files_lie(served: House) -> None:
    control = json.loads((served.home / "run" / "endpoint.json").read_text())["control_url"]
    answer = served.call("GET", f"/v2/pushed/blobs/{DIGEST}", url=control,
                         headers={"x-freehold-client": "me"})  # fmt: skip
    assert answer.status == 404
    assert "x-freehold-file" not in answer.headers
    assert "x-freehold-file" not in ask(served, "GET", f"/v2/pushed/blobs/{DIGEST}").headers


def test_what_happened_is_in_the_record(served: House) -> None:
    push_model(served, "pushed")
    found = [each for each in served.audit(limit="200") if each["action"] == "repository:write"]
    assert any("PUT /v2/pushed/manifests/v1" in (each["subject"] or "") for each in found)


def test_skopeo_pushes_and_pulls_byte_for_byte(served: House, tmp_path: Path) -> None:
    needs("skopeo")
    model = gguf({"general.architecture": "llama", "general.name": "skopeo"})
    made = manifest(layer(model, "m.gguf", WEIGHT))
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "version").write_text("Directory Transport Version: 1.1\n")
    (folder / "manifest.json").write_bytes(made)
    for data in (b"{}", model):
        (folder / digest(data)[7:]).write_bytes(data)
    host = served.url.removeprefix("http://")
    run("skopeo", "copy", "--dest-tls-verify=false", "--dest-creds", f"me:{served.key}",
        f"dir:{folder}", f"docker://{host}/skopeo:v1")  # fmt: skip
    shown = served.call("GET", "/api/models/skopeo").json["versions"]
    assert shown[0]["digest"] == hashlib.sha256(model).hexdigest()
    run("skopeo", "copy", "--src-tls-verify=false", "--src-creds", f"me:{served.key}",
        f"docker://{host}/skopeo:1", f"dir:{tmp_path / 'out'}")  # fmt: skip
    assert (tmp_path / "out" / "manifest.json").read_bytes() == made
    assert (tmp_path / "out" / digest(model)[7:]).read_bytes() == model
    listed = run("skopeo", "list-tags", "--tls-verify=false", "--creds", f"me:{served.key}",
                 f"docker://{host}/skopeo")  # fmt: skip
    assert json.loads(listed)["Tags"] == ["1", "production", "v1"]
    refused = subprocess.run(
        ["skopeo", "inspect", "--tls-verify=false", "--creds", "me:wrong",
         f"docker://{host}/skopeo:1"],
        capture_output=True, text=True, check=False, env=clean_environment(),
    )  # fmt: skip
    assert refused.returncode != 0


def test_oras_pushes_and_pulls_byte_for_byte(served: House, tmp_path: Path) -> None:
    model = gguf({"general.architecture": "llama", "general.name": "oras"})
    (tmp_path / "tiny.gguf").write_bytes(model)
    host = served.url.removeprefix("http://")
    code_ = (
        "import sys, oras.client; c = oras.client.OrasClient(insecure=True, auth_backend='basic');"
        "c.auth.set_basic_auth('me', sys.argv[2]);"
        "c.push(target=sys.argv[1], files=['tiny.gguf'], disable_path_validation=True);"
        "c.pull(target=sys.argv[1], outdir='out', allowed_media_type=[])"
    )
    run(sys.executable, "-c", code_, f"{host}/oras:v1", served.key, cwd=tmp_path)
    assert (tmp_path / "out" / "tiny.gguf").read_bytes() == model
    assert (
        served.call("GET", "/api/models/oras")
        .json["versions"][0]["resolved"]
        .startswith("pushed:oras@")
    )


def run(*arguments: str, cwd: Path | None = None) -> str:
    done = subprocess.run(
        arguments, cwd=cwd, capture_output=True, text=True, check=False, env=clean_environment()
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


def test_where_it_is_switched_off_there_is_none(new_house: Callable[..., House]) -> None:
    house = new_house(empty=True, settings="[registry]\nenabled = false\n").start()
    assert ask(house, "GET", "/v2/").status == 404
    assert house.call("GET", "/v2/health/live", key=None).status == 200


def test_no_blob_is_held_in_memory(served: House) -> None:
    """80 MB in and out while no process grows by half of that."""
    import psutil

    data = os.urandom(1 << 20) * 80
    pids = [*served.gateways(), served.control.pid if served.control else 0]
    before = {pid: psutil.Process(pid).memory_info().rss for pid in pids}
    with tempfile.TemporaryFile() as file:
        file.write(data)
        assert upload(served, "large", data).status == 201
    answer = ask(served, "GET", f"/v2/large/blobs/{digest(data)}")
    assert answer.body == data
    grown = {pid: psutil.Process(pid).memory_info().rss - before[pid] for pid in pids}
    assert max(grown.values()) < 40 * 1024 * 1024, grown


def test_a_push_survives_kills_of_everything(new_house: Callable[..., House]) -> None:
    house = new_house(empty=True, settings="[registry]\nblob_limit = 3000000\n").start()
    answer = upload(house, "killed", bytes(3_000_001))
    assert (answer.status, code(answer)) == (413, "SIZE_INVALID")
    big = gguf({"general.architecture": "llama"}, [("w", [500_000], 0, 0)], os.urandom(2_000_000))
    place = ask(house, "POST", "/v2/killed/blobs/uploads/").headers["location"]
    assert ask(house, "PATCH", place, big[:700_000]).status == 202
    house.kill_control()
    assert ask(house, "GET", place).status == 503
    house.start()
    assert _have(house, place) == 700_000
    assert ask(house, "PATCH", place, big[700_000:900_000]).status == 202
    for pid in house.gateways():
        os.kill(pid, 9)
    eventually(lambda: _answers(house, place), "another gateway")
    assert _have(house, place) == 900_000
    assert ask(house, "PUT", f"{place}?digest={digest(big)}", big[900_000:]).status == 201
    house.kill_control()
    house.start()
    assert upload(house, "killed", b"{}").status == 201
    assert push(house, "killed", "v1", manifest(layer(big, "m.gguf", WEIGHT))).status == 201
    house.kill_control()
    house.start()
    assert ask(house, "GET", f"/v2/killed/blobs/{digest(big)}").body == big
    assert house.call("GET", "/api/models/killed").json["versions"][0]["bytes"] == len(big)


def _answers(house: House, place: str) -> bool:
    try:
        return ask(house, "GET", place).status == 204
    except OSError:
        return False


def test_a_full_disk_ends_an_upload_and_nothing_else(tmp_path: Path) -> None:
    needs("prlimit")
    house = House(tmp_path / "home", prefix=("prlimit", "--fsize=40000000"))
    try:
        house.start()
        data = bytes(50_000_000)
        place = ask(house, "POST", "/v2/full/blobs/uploads/").headers["location"]
        answer = ask(house, "PATCH", place, data)
        assert (answer.status, b"no space left" in answer.body) == (503, True)
        kept = _have(house, place)
        assert 0 < kept <= 40_000_000
        assert ask(house, "PUT", f"{place}?digest={digest(data)}").status == 400
        assert ask(house, "GET", f"/v2/full/blobs/{digest(data)}").status == 404
        assert ask(house, "GET", "/v2/_catalog").json["repositories"] == []
        push_model(house, "fits")
        assert not any((house.home / "registry" / "uploads").rglob("*/*"))
    finally:
        house.close()
