"""What must not end a house, nor open it: faults inside control, and strangers on its port."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from freehold.runtime.process import birth
from freehold.store.snapshot import read_snapshot
from tests.house import House, eventually
from tests.servers import reply, serving

Make = Callable[..., House]


def answer_of(tokens: int) -> bytes:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "hi"},
        "finish_reason": "stop",
    }
    usage = {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": 2}
    return json.dumps(
        {"id": "x", "object": "chat.completion", "created": 1, "model": "x",
         "choices": [choice], "usage": usage}
    ).encode()  # fmt: skip


def overcounting(request: BaseHTTPRequestHandler) -> None:
    request.rfile.read(int(request.headers.get("content-length") or 0))
    reply(request, 200, answer_of(2**63))


def test_no_deployment_ends_control(new_house: Make, tmp_path: Path) -> None:
    house = new_house(empty=True).start()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "key").write_text("k")
    keys = ("file:~nosuchuser/x", "file:a\0b", f"file:{tmp_path / 'pipe'}", "file:/dev/zero")
    with serving(overcounting) as url:
        for number, key in enumerate(keys):
            body = {"name": f"d{number}", "urls": [f"{url}/v1"], "upstream_key": key}
            answer = house.call("PUT", f"/api/deployments/d{number}", {**body, "place": "local"})
            assert answer.status == 200
        body = {"name": "odd", "model": "m:\u00b2"}
        assert house.call("PUT", "/api/deployments/odd", body).status == 404
        huge = {"name": "huge", "urls": [f"{url}/v1"], "slots": 10**400}
        assert house.call("PUT", "/api/deployments/huge", huge).status == 400
        well = {"name": "well", "urls": [f"{url}/v1"], "upstream_key": f"file:{tmp_path / 'key'}"}
        house.call("PUT", "/api/deployments/well", well)
        eventually(lambda: house.deployment("well")["state"] == "ready", "the endpoint")
        assert house.deployment("d0")["state"] == "failed"
        asked = {"model": "well", "messages": [{"role": "user", "content": "hi"}]}
        assert house.call("POST", "/v1/chat/completions", asked).status >= 500
        eventually(lambda: "completion:run" in [r["action"] for r in house.audit()], "a record")
    assert house.control is not None
    assert house.control.poll() is None


def test_a_full_disk_under_the_snapshot_ends_nobody(new_house: Make) -> None:
    house = new_house(empty=True, settings="[log]\n").start()
    assert house.home.stat().st_mode & 0o077  # it was there before, and anybody may look in
    found = [path for path in house.home.rglob("*") if path.name != "freehold.toml"]
    assert not [path for path in found if path.stat().st_mode & 0o077 and not path.is_dir()]
    obstacle = house.home / "run" / "snapshot.json.partial"
    obstacle.mkdir()
    key = house.make_key("developer")  # in force though it cannot be written
    assert house.call("GET", "/v1/models", key=key).status == 200
    said = "saving the snapshot failed and is tried again"
    eventually(lambda: said in house.log, "the complaint")
    obstacle.rmdir()
    eventually(
        lambda: len(read_snapshot(house.home / "run" / "snapshot.json").keys) == 2, "the file"
    )


def test_who_takes_the_port_of_a_dead_control_learns_nothing(new_house: Make) -> None:
    house = new_house(empty=True).start()
    url, key = house.url, house.key
    snapshot = read_snapshot(house.home / "run" / "snapshot.json")
    seen: list[str] = []

    class Thief(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            seen.append(f"{self.path} {self.headers} {body!r}")
            forged = {"revision": 2**50, "ready": True, "routes": {}, "keys": {}}
            data = json.dumps(forged).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_DELETE = do_POST  # noqa: N815 - named by the standard library

        def log_message(self, *_: object) -> None: ...

    house.kill_control()
    port = int(snapshot.control_url.rpartition(":")[2])
    with ThreadingHTTPServer(("127.0.0.1", port), Thief) as thief:
        Thread(target=thief.serve_forever, daemon=True).start()
        eventually(lambda: seen, "a question of the gateway")
        for _ in range(3):
            refused = house.call("GET", "/api/status", url=url, key=key)
            assert refused.error["code"] == "unavailable.control"
        assert house.call("GET", "/v1/models", url=url, key=key).status == 200  # keys are as before
        thief.shutdown()
    told = "".join(seen)
    assert snapshot.control_secret not in told
    assert key not in told
    assert "/api/" not in told
    house.start()
    assert house.call("GET", "/api/status").status == 200


def test_the_command_line_believes_no_address_of_a_dead_one(new_house: Make) -> None:
    house = new_house(empty=True).start()
    record = house.home / "run" / "endpoint.json"
    stale = record.read_bytes()
    assert house.stop() == 0
    seen: list[str] = []
    with serving(
        lambda request: (seen.append(str(request.headers)), reply(request, 200, b"{}"))
    ) as url:
        record.write_bytes(stale.replace(json.loads(stale)["url"].encode(), url.encode()))
        hold = f"""
import sys; from pathlib import Path; from freehold.control.home import Home
home = Home(Path({str(house.home)!r})); text = home.endpoint.read_bytes(); home.lock()
home.endpoint.write_bytes(text); print("held", flush=True); sys.stdin.read()
"""
        with subprocess.Popen(
            [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as holder:
            assert holder.stdout is not None
            holder.stdout.readline()
            assert house.run_cli("status").returncode == 1
    assert not seen


def test_a_gateway_without_a_record_is_found(new_house: Make) -> None:
    house = new_house(empty=True).start()
    [gateway] = house.gateways()
    house.kill_control()
    for path in (house.home / "run" / "gateways").glob("*.json"):
        path.write_text("{")
    house.cli("down")
    assert birth(gateway) is None
    house.start()
    [gateway] = house.gateways()
    house.kill_control()
    for path in (house.home / "run" / "gateways").glob("*.json"):
        path.unlink()
    house.start()
    assert house.gateways() != [gateway]
    eventually(lambda: birth(gateway) is None, "the end of the stray")
    assert house.call("GET", "/healthz", key=None).status == 200


def test_keys_come_and_go_without_harm(new_house: Make) -> None:
    house = new_house(empty=True).start()
    [gateway] = house.gateways()
    os.kill(gateway, signal.SIGSTOP)
    try:
        control = json.loads((house.home / "run" / "endpoint.json").read_text())["control_url"]
        body = {"principal": "root", "role": "admin"}
        made = house.call("POST", "/api/keys", body, url=control)
        assert made.status == 201
    finally:
        os.kill(gateway, signal.SIGCONT)
    assert house.gateways() == [gateway]  # only slow, and nobody was locked out
    other = made.json["key"]
    eventually(lambda: house.call("GET", "/api/keys", key=other).status == 200, "the new key")
    keys = house.call("GET", "/api/keys", key=other).json
    first = next(key["id"] for key in keys if key["principal"] == "admin")
    assert house.call("DELETE", f"/api/keys/{first}", key=other).status == 200
    revoked = house.run_cli("status").stderr
    assert f"{house.home}/admin.key: freehold down and freehold up" in revoked
    assert "FREEHOLD_KEY" in house.run_cli("status", "--key", "fh-none-x").stderr
    last = next(key["id"] for key in keys if key["principal"] == "root")
    refused = house.call("DELETE", f"/api/keys/{last}", key=other)
    assert (refused.status, refused.error["code"]) == (409, "conflict.last_admin")
    assert house.call("GET", "/api/keys", key=other).status == 200
    house.stop()
    house.start()  # which is asked with the key that it has written anew
    assert house.call("GET", "/api/keys", key=other).status == 200
    before = house.key
    (house.home / "admin.key").unlink()
    assert "freehold down and freehold up" in house.run_cli("status").stderr
    house.stop()
    house.start()
    assert house.key != before
    kept = house.key
    house.stop()
    assert house.start().key == kept
