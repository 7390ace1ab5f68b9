"""Starting, stopping, dying and coming back: nothing is lost, nobody is left behind."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import psutil
import pytest

from tests.house import House, events, eventually

Make = Callable[..., House]


def test_a_clean_stop_leaves_no_process_and_a_second_start_loads_again(own_house: House) -> None:
    processes = [*own_house.gateways(), own_house.engine_pid()]
    assert own_house.stop() == 0
    assert not [pid for pid in processes if _alive(pid)]
    assert not (own_house.home / "run" / "url").exists()
    own_house.start()
    assert own_house.chat().status == 200


def test_the_first_start_makes_an_administrators_key(new_house: Make) -> None:
    house = new_house(empty=True).start()
    assert (house.home / "admin.key").stat().st_mode & 0o777 == 0o600
    assert house.call("GET", "/api/keys").json[0]["role"] == "admin"
    first = house.key
    house.stop()
    house.start()
    assert house.key == first
    assert house.call("GET", "/v1/models").json == {"object": "list", "data": []}
    assert house.chat().status == 404


def test_killing_control_leaves_answers_and_a_new_one_takes_over(own_house: House) -> None:
    engine, gateways, url = own_house.engine_pid(), own_house.gateways(), own_house.url
    key = own_house.make_key("developer")
    own_house.kill_control()
    for _ in range(3):
        answer = own_house.call(
            "POST", "/v1/chat/completions", _body(), key=key, url=url
        )  # fmt: skip
        assert answer.status == 200
    refused = own_house.call("GET", "/api/status", url=url)
    assert (refused.status, refused.error["code"]) == (503, "unavailable.control")
    told = own_house.run_cli("key", "list")
    assert told.returncode == 1
    assert "start it again with freehold up" in told.stderr
    own_house.start()
    assert own_house.url == url
    assert (own_house.engine_pid(), own_house.gateways()) == (engine, gateways)
    assert own_house.replicas()[0]["failures"] == 0
    assert own_house.chat(key=key).status == 200
    assert own_house.make_key("developer")


def test_an_endpoint_that_is_away_is_named_to_operators_and_nobody_waits(own_house: House) -> None:
    own_house.cli("deploy", "--url", "http://127.0.0.1:9/v1", "--as", "away", "--wait")
    begun = time.monotonic()
    said = own_house.run_cli("chat", "Hello", "--model", "away").stderr
    assert time.monotonic() - begun < 15
    assert "the endpoint of away does not answer" in said
    assert "127.0.0.1:9" not in said
    assert "does not answer: http://127.0.0.1:9/v1" in own_house.cli("status")
    assert "away: does not answer: http://127.0.0.1:9/v1" in own_house.cli("doctor")


def test_a_restart_says_what_is_not_in_force(own_house: House) -> None:
    assert own_house.json("restart")["pending"] == []
    file = own_house.home / "freehold.toml"
    before = file.read_text() if file.exists() else ""
    file.write_text(f"{before}\n[signing]\nrequired = true\n[cache]\nbytes = 1000000\n")
    assert own_house.json("restart")["pending"] == ["signing"]
    assert "until freehold down and freehold up: signing" in own_house.cli("restart")
    own_house.stop()
    own_house.start()
    assert own_house.json("restart")["pending"] == []


def test_requests_run_through_a_restart_of_control(own_house: House) -> None:
    url, key = own_house.url, own_house.key
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(
            own_house.call, "POST", "/v1/chat/completions",
            _body(stream=True, max_tokens=300, ignore_eos=True), key=key, url=url,
        )  # fmt: skip
        eventually(lambda: own_house.replicas()[0]["inflight"], "it runs")
        own_house.kill_control()
        own_house.start()
        answer = running.result()
    assert events(answer.body)[-1] == "[DONE]"
    record = own_house.audit(id=answer.headers["x-freehold-request"])
    assert record[0]["tokens_out"] == 300


def test_a_killed_engine_comes_back_and_its_requests_fail_clearly(own_house: House) -> None:
    pid = own_house.engine_pid()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(
            own_house.chat, stream=True, max_tokens=2000, ignore_eos=True, temperature=1
        )
        eventually(lambda: own_house.replicas()[0]["inflight"], "it runs")
        os.kill(pid, signal.SIGKILL)
        answer = running.result()
    if answer.status == 200:
        last = events(answer.body)[-1]
        assert last["error"]["code"].startswith("unavailable.engine")
    else:
        assert answer.status == 503
    waited = own_house.chat(headers={"prefer": "wait=60"})
    assert waited.status == 200, waited.body
    assert own_house.engine_pid() != pid
    assert own_house.replicas()[0]["failures"] == 1


def test_an_engine_that_hangs_is_replaced(own_house: House) -> None:
    pid = own_house.engine_pid()
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: own_house.replicas()[0]["pid"] not in (pid, None), "replaced")
    eventually(lambda: own_house.deployment()["state"] == "ready", "ready again")
    assert own_house.chat().status == 200


def test_a_killed_gateway_is_started_again_on_the_same_port(own_house: House) -> None:
    url, before = own_house.url, own_house.gateways()
    os.kill(before[0], signal.SIGKILL)

    def answers() -> bool:
        try:
            return own_house.call("POST", "/v1/chat/completions", _body(), url=url).status == 200
        except OSError:
            return False

    eventually(answers, "a new gateway answers")
    assert own_house.gateways() != before


def test_killing_everything_at_once_loses_nothing(own_house: House) -> None:
    key = own_house.make_key("developer")
    request = own_house.chat(key=key).headers["x-freehold-request"]
    processes = [*own_house.gateways(), own_house.engine_pid()]
    own_house.kill_control()
    for pid in processes:
        os.kill(pid, signal.SIGKILL)
    own_house.start()
    assert own_house.chat(key=key).status == 200
    assert own_house.audit(id=request)[0]["tokens_out"] == 8


def test_killed_while_an_engine_loads(new_house: Make) -> None:
    house = new_house().start(wait=False)
    eventually(lambda: list((house.home / "run" / "replicas").glob("*.json")), "it loads")
    house.kill_control()
    house.start()
    assert house.chat().status == 200
    engines = [
        process.pid
        for process in psutil.process_iter(["cmdline", "environ"])
        if "freehold.builtin.engine_llamacpp" in (process.info["cmdline"] or ())
        and str(house.home) in " ".join(f.path for f in process.open_files())
    ]
    assert engines == [house.engine_pid()]


def test_down_ends_what_a_killed_control_left(own_house: House) -> None:
    processes = [*own_house.gateways(), own_house.engine_pid()]
    own_house.kill_control()
    assert own_house.json("down")["leftovers"] == 2
    assert not [pid for pid in processes if _alive(pid)]
    assert own_house.json("down") == {"stopped": False, "control": None, "leftovers": 0}


def test_down_stops_a_running_one(own_house: House) -> None:
    assert own_house.json("down")["stopped"] is True
    assert own_house.control is not None
    assert own_house.control.wait(10) == 0


def test_two_on_one_home_are_refused(own_house: House) -> None:
    told = own_house.run_cli("up", "--no-starter", "--port", "0")
    assert told.returncode == 1
    assert "already runs" in told.stderr
    assert own_house.chat().status == 200


def test_a_port_in_use_says_so(new_house: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        house = new_house(empty=True)
        told = house.run_cli("up", "--no-starter", "--port", port)
    assert told.returncode == 1
    assert f"port {port} on 127.0.0.1 is in use" in told.stderr
    assert told.stderr.count("\n") <= 2


def test_a_home_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    told = House(file / "home").run_cli("up", "--no-starter")
    assert told.returncode == 1
    assert "cannot write to" in told.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="NEEDS ROOT to mount a read-only file system")
def test_a_read_only_home(new_house: Make, tmp_path: Path) -> None:
    house = new_house()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro", "none", str(house.home)], check=False,
        capture_output=True,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip("NO RIGHT TO MOUNT on this machine")
    try:
        told = house.run_cli("up", "--no-starter", "--port", "0")
        assert told.returncode == 1
        assert "Read-only file system" in told.stderr
        assert "Traceback" not in told.stderr
    finally:
        subprocess.run(["umount", str(house.home)], check=True)
    assert house.start().chat().status == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="NEEDS ROOT to mount a small file system")
def test_a_full_disk_refuses_what_it_cannot_record(new_house: Make, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(small)], check=False,
        capture_output=True,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip("NO RIGHT TO MOUNT on this machine")
    house = new_house()
    try:
        shutil.move(house.home / "audit", small / "audit")
        (house.home / "audit").symlink_to(small / "audit")
        house.start()
        assert house.chat().status == 200
        filler = small / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                pass
        refused = eventually(lambda: _full(house), "a refusal")
        assert refused["code"] == "unavailable.audit"
        assert "disk is full" in refused["message"]
        streamed = house.chat(stream=True)
        assert "[DONE]" not in events(streamed.body)
        filler.unlink()
        answer = house.chat()
        assert answer.status == 200
        assert house.audit(id=answer.headers["x-freehold-request"])
    finally:
        house.close()
        subprocess.run(["umount", str(small)], check=True)


def test_settings_that_are_wrong_stop_the_start(new_house: Make) -> None:
    house = new_house(empty=True, settings="[server]\nprot = 1\n")
    told = house.run_cli("up")
    assert told.returncode == 1
    assert "unknown key server.prot: did you mean port?" in told.stderr


def test_a_damaged_database_is_named(new_house: Make) -> None:
    house = new_house(empty=True)
    house.home.mkdir()
    (house.home / "freehold.db").write_bytes(b"not a database at all" * 100)
    told = house.run_cli("model", "list")
    assert told.returncode == 1
    assert "damaged: restore it from a backup" in told.stderr


def test_up_prints_a_real_answer_and_snippets_that_work(prepared: Path, new_house: Make) -> None:
    house = new_house()
    house.start()
    text = eventually(lambda: house.log if "Ctrl-C stops" in house.log else "", "the greeting")
    assert "Paris" in text
    curl = text[text.index("curl http") : text.index("\n\nor with")]
    ran = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, check=True)
    asked = json.loads(ran.stdout)["choices"][0]["message"]["content"].strip()
    assert asked.split() == _told(text)
    code = text[text.index("from pathlib") : text.index("\n\nCtrl-C")]
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == _told(text)


def test_an_answer_that_a_stop_cuts_says_so(new_house: Make) -> None:
    house = new_house(settings="[server]\nshutdown_grace = 0.3\n").start()
    asked = json.dumps(_body(stream=True, max_tokens=4000, ignore_eos=True)).encode()
    request = urllib.request.Request(f"{house.url}/v1/chat/completions", asked)
    request.add_header("authorization", f"Bearer {house.key}")
    command = [sys.executable, "-m", "freehold", "chat", "--home", str(house.home)]
    chat = subprocess.Popen(
        [*command, "Write a very long story about the sea."], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert chat.stdout is not None
    with urllib.request.urlopen(request, timeout=60) as response:
        begun = response.readline() + chat.stdout.read(1).encode()
        assert len(begun) > 1
        eventually(
            lambda: house.call("GET", "/api/gateways").json["gateways"][0]["requests"], "seen"
        )
        assert house.stop() == 0
        last = events(b"\n" + response.read())[-1]
    told, said = chat.communicate(timeout=60)
    assert last["error"]["code"] == "unavailable.stopping"
    assert chat.returncode == 1
    assert told.endswith("\n")
    assert said.startswith("freehold: the answer was cut: this gateway stops")
    assert "finishing " in house.log
    assert "Ctrl-C again to stop at once" in house.log


def test_a_second_interrupt_stops_at_once(new_house: Make) -> None:
    house = new_house(settings="[server]\nshutdown_grace = 100000\n").start()
    assert house.control is not None
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(
            house.chat, stream=True, max_tokens=4000, ignore_eos=True, temperature=1
        )
        eventually(lambda: house.replicas()[0]["inflight"], "it runs")
        house.control.send_signal(signal.SIGINT)
        eventually(lambda: "Ctrl-C again" in house.log, "it was heard")
        assert house.stop() == 0
        with suppress(OSError, HTTPException):
            assert "[DONE]" not in events(running.result().body)


def _told(text: str) -> list[str]:
    """Return the words of the answer that the greeting shows."""
    return text[text.index("smol:\n") + 6 : text.index("\n\nAsk again")].split()


def _full(house: House) -> dict[str, str] | None:
    answer = house.chat()
    return answer.error if answer.status == 503 else None


def _body(**fields: object) -> dict[str, object]:
    question = [{"role": "user", "content": "What is gravity?"}]
    return {"model": "smol", "messages": question, "max_tokens": 8, **fields}


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
