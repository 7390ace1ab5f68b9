"""Engines in a running house: built, chosen, checked at each start, refused when they differ."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from freehold.models.fallback import TRIES
from tests.house import House, eventually
from tests.make_engine import program, rewrite, source

Make = Callable[..., House]
pytestmark = pytest.mark.skipif(
    not (shutil.which("cmake") and (shutil.which("ninja") or shutil.which("make"))),
    reason="NO COMPILER: cmake is not on this machine",
)


def _job(house: House, path: str, body: object = None) -> dict[str, Any]:
    answer = house.call("POST", path, body)
    assert answer.status == 202, answer.body

    def over() -> Any:
        job = house.call("GET", f"/api/jobs/{answer.json['id']}?wait=30").json
        return job if job["state"] != "running" else None

    found: dict[str, Any] = eventually(over, "the job is over", 280)
    return found


def _build_of(house: House, name: str = "smol") -> str | None:
    replicas = house.replicas(name)
    ready = [each for each in replicas if each["state"] == "ready"]
    return ready[0]["build"] if len(replicas) == len(ready) == 1 else None


def test_a_build_survives_a_kill_is_tried_used_and_removed(
    own_house: House, tmp_path: Path
) -> None:
    archive, digest = source(tmp_path)
    refused = own_house.call("POST", "/api/engines", {"source": str(archive)})
    assert refused.status == 202
    unknown = own_house.call("GET", f"/api/jobs/{refused.json['id']}?wait=30").json
    assert unknown["error"]["code"] == "invalid.digest"
    body = {"source": str(archive), "sha256": digest, "backend": "cpu", "rounds": 0}
    job = own_house.call("POST", "/api/engines", body).json
    path = f"/api/jobs/{job['id']}"
    eventually(
        lambda: own_house.call("GET", path).json["stage"] in ("start", "compare"), "on trial"
    )
    own_house.kill_control()
    own_house.start()
    assert len(own_house.call("GET", "/api/engines").json) == 1  # nothing half-built is visible
    job = _job(own_house, "/api/engines", body)
    assert job["state"] == "done", job
    built = job["result"]
    (match,) = built["matches"]
    assert match["agreed"] == match["places"] >= 90
    assert match["furthest"] < 0.001  # it is the wheel's server, behind another door
    listed = own_house.json("engine", "list")
    assert [each["id"] for each in listed] == ["wheel", built["id"]]
    assert not (own_house.home / "scratch" / "engines").exists()
    # Were it measured faster, it is what deployments get by themselves.
    notes = own_house.home / "engines" / built["id"] / "build.json"
    measured = notes.read_text()
    known = json.loads(measured)
    known["matches"][0]["build"] = {"reading": 150, "writing": 100, "eight": 100}
    known["matches"][0]["wheel"] = {"reading": 100, "writing": 100, "eight": 100}
    notes.write_text(json.dumps(known))
    assert own_house.json("engine", "list")[1]["chosen_for"] == ["llama"]
    desired = own_house.deployment()["desired"]
    assert own_house.call("PUT", "/api/deployments/smol", desired | {"slots": 3}).status == 200
    eventually(lambda: _build_of(own_house) == built["id"], "chosen by itself")
    assert own_house.chat().status == 200
    # It is no faster, so nobody gets it who does not ask.
    notes.write_text(measured)
    assert own_house.call("PUT", "/api/deployments/smol", desired).status == 200
    eventually(lambda: _build_of(own_house) == "wheel", "the wheel again")
    body = desired | {"build": built["id"]}
    assert own_house.call("PUT", "/api/deployments/smol", body).status == 200
    eventually(lambda: _build_of(own_house) == built["id"], "it runs on the build")
    assert own_house.chat().status == 200
    pid = own_house.engine_pid()
    argv = Path(f"/proc/{pid}/cmdline").read_bytes()
    record = json.loads(next(own_house.home.glob("run/replicas/*.json")).read_text())
    assert record["secret"].encode() not in argv
    assert record["secret"].encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    in_use = own_house.run_cli("engine", "remove", built["id"])
    assert (in_use.returncode, "asked for by smol" in in_use.stderr) == (1, True)
    # One byte of it is changed: the next start fails closed.
    binary = own_house.home / "engines" / built["id"] / "llama-server"
    binary.chmod(0o700)
    data = bytearray(binary.read_bytes())
    data[-1] ^= 1
    binary.write_bytes(data)
    Path(f"/proc/{pid}").exists()
    own_house.call("PUT", "/api/deployments/smol", body | {"slots": 2})
    eventually(lambda: any("not what was built" in str(r["reason"]) for r in own_house.replicas()),
               "refused")  # fmt: skip
    body.pop("build")
    own_house.call("PUT", "/api/deployments/smol", body)
    eventually(lambda: _build_of(own_house) == "wheel", "back on the wheel")
    assert own_house.chat().status == 200
    own_house.json("engine", "remove", built["id"])
    assert len(own_house.json("engine", "list")) == 1
    unknown = own_house.call("PUT", "/api/deployments/smol", body | {"build": "cpu-0"})
    assert unknown.status == 400
    assert "there is no engine" in unknown.error["message"]


def test_a_job_is_cancelled_by_whoever_may_start_one(own_house: House, tmp_path: Path) -> None:
    archive, digest = source(tmp_path)
    job = own_house.call("POST", "/api/engines", {"source": str(archive), "sha256": digest}).json
    path = f"/api/jobs/{job['id']}"
    for role in ("developer", "operator"):
        refused = own_house.call("DELETE", path, key=own_house.make_key(role))
        assert (refused.status, refused.error["code"]) == (403, "forbidden.role")
    own_house.cli("job", "cancel", job["id"])
    over = own_house.call("GET", f"{path}?wait=30").json
    assert (over["state"], over["error"]["code"]) == ("failed", "unavailable.cancelled")
    assert "was cancelled by admin" in own_house.cli("job", "list")
    again = own_house.run_cli("job", "cancel", job["id"])
    assert (again.returncode, "over already" in again.stderr) == (1, True)
    assert own_house.call("DELETE", "/api/jobs/none").status == 404
    record = own_house.audit()
    assert [r["outcome"] for r in record if r["action"] == "job:cancel"].count("ok") == 1


def test_what_answers_otherwise_is_never_registered(own_house: House, tmp_path: Path) -> None:
    archive, digest = source(tmp_path, wrong=True)
    job = _job(own_house, "/api/engines", {"source": str(archive), "sha256": digest, "rounds": 0})
    assert job["state"] == "failed"
    assert "does not answer smol:1 as the wheel does" in job["error"]["message"]
    assert not (own_house.home / "engines").exists()
    assert len(own_house.call("GET", "/api/engines").json) == 1


def test_a_prebuilt_server_is_taken_in_and_tuning_is_stored(
    own_house: House, tmp_path: Path
) -> None:
    developer = own_house.make_key("developer")
    operator = own_house.make_key("operator")
    for key in (developer, operator):  # a program of somebody's is run: not for everybody
        assert own_house.call("POST", "/api/engines", {}, key=key).status == 403
        assert own_house.call("POST", "/api/engines/pick", {}, key=key).status == 403
    no_server = own_house.run_cli("engine", "pick", "--binary", "/bin/true")
    assert (no_server.returncode, "no llama.cpp server" in no_server.stderr) == (1, True)
    assert own_house.json("engine", "pick")["best"] == {"llama": "wheel"}
    job = _job(own_house, "/api/deployments/smol/tune", {"only": ["flash"], "rounds": 1})
    assert job["state"] == "done", job
    found = job["result"]
    assert {trial["choice"]["flash"] for trial in found["trials"]} == {True, False}
    desired = own_house.deployment()["desired"]
    assert desired["threads"] == found["choice"]["threads"]
    assert desired.get("flash") == found["choice"]["flash"]
    eventually(lambda: _build_of(own_house) == "wheel", "runs as it was tuned")
    assert own_house.chat().status == 200
    missing = own_house.call("POST", "/api/deployments/none/tune", {})
    assert missing.status == 404


def _put_build(house: House, name: str, folder: Path) -> None:
    """Put a build there as if it had been verified on the starter and found faster."""
    place = house.home / "engines" / name
    shutil.copytree(folder, place)
    digest = hashlib.sha256((place / "llama-server").read_bytes()).hexdigest()
    speed = {"reading": 100, "writing": 100, "eight": 100}
    match = {
        "model": "smol:1", "digest": "d", "architecture": "llama", "places": 96, "agreed": 96,
        "furthest": 0.0, "build": speed | {"reading": 150}, "wheel": speed,
    }  # fmt: skip
    known = {
        "id": name, "kind": "native", "backend": "cpu", "version": "0", "made": {}, "bytes": 1,
        "files": {"llama-server": digest}, "created": 1.0, "created_by": "me", "matches": [match],
    }  # fmt: skip
    (place / "build.json").write_text(json.dumps(known))


def _records(house: House, action: str) -> list[dict[str, Any]]:
    return house.audit(action=action, limit="1000")


def test_a_build_that_does_not_start_gives_way_to_the_wheel(
    own_house: House, tmp_path: Path
) -> None:
    picky = 'if "256" in sys.argv: sys.exit("error: no such batch")'
    _put_build(own_house, "cpu-1", program(tmp_path, picky))
    desired = own_house.deployment()["desired"]
    # It cannot be run as this deployment wants it, and otherwise it can: that alone is held to it.
    own_house.call("PUT", "/api/deployments/smol", desired | {"batch": 256, "slots": 2})
    eventually(lambda: own_house.deployment()["reason"], "a reason is told")
    eventually(lambda: _build_of(own_house) == "wheel", "on the wheel")
    shown = own_house.deployment()
    assert shown["state"] == "ready"
    assert "cpu-1, which does not start" in shown["reason"]
    assert "no such batch" in shown["reason"]
    eventually(
        lambda: [r for r in _records(own_house, "job:engine") if "try cpu-1" in r["subject"]],
        "the build was tried",
    )
    assert own_house.json("engine", "list")[1]["failing"] is None
    # Now it starts for nobody any more, as when its card is taken out.
    rewrite(tmp_path, 'sys.exit("error: the card is gone")')
    own_house.call("PUT", "/api/deployments/smol", desired | {"batch": 128, "slots": 2})
    eventually(lambda: _records(own_house, "engine:failing"), "condemned")
    assert _build_of(own_house) == "wheel"
    assert own_house.chat().status == 200
    (_, listed) = own_house.json("engine", "list")
    assert "the card is gone" in listed["failing"]["reason"]
    assert listed["chosen_for"] == []
    assert "cpu-1 is failing" in own_house.cli("engine", "list")
    doubts = _records(own_house, "engine:doubted")
    assert [each["deployment"] for each in doubts] == ["smol", "smol"]
    # That outlives control. Whoever names the build gets it, and hears of it.
    own_house.kill_control()
    own_house.start()
    assert "the card is gone" in own_house.deployment()["reason"]
    named = own_house.deployment()["desired"] | {"build": "cpu-1"}
    own_house.call("PUT", "/api/deployments/smol", named)
    eventually(
        lambda: [r for r in own_house.replicas() if r["failures"] > TRIES],
        "what was named is tried again and again",
    )
    assert _records(own_house, "engine:doubted") == doubts
    own_house.call("PUT", "/api/deployments/smol", named | {"build": None})
    # The card is back: to be found out by asking.
    rewrite(tmp_path, "")
    own_house.cli("engine", "pick", "--rounds", "0")
    assert own_house.json("engine", "list")[1]["failing"] is None
    assert own_house.deployment()["reason"] is None
