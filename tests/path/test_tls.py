"""TLS at the door and towards endpoints; gateways replaced under load."""

import http.client
import json
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from tests.fake_engine import fake_engine
from tests.house import House, eventually

Make = Callable[..., House]
QUESTION = {"model": "fake", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}


class Papers:
    """An authority and what it signed, as files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.ca = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(str(self.ca))
        self.certificate, self.key = folder / "server.pem", folder / "server.key"
        self.client = folder / "client.pem"
        self.client_key = folder / "client.key"
        client = self.authority.issue_cert("a-client")
        client.cert_chain_pems[0].write_to_path(str(self.client))
        client.private_key_pem.write_to_path(str(self.client_key))
        self.renew()

    def renew(self) -> None:
        issued = self.authority.issue_cert("localhost", "127.0.0.1")
        issued.cert_chain_pems[0].write_to_path(str(self.certificate))
        issued.private_key_pem.write_to_path(str(self.key))

    @property
    def settings(self) -> str:
        return f'[server]\ntls_certificate = "{self.certificate}"\ntls_key = "{self.key}"\n'

    def context(self, *, client: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.ca))
        if client:
            context.load_cert_chain(self.client, self.client_key)
        return context


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return Papers(tmp_path)


def _start(house: House) -> None:
    """Start a house that is not reached over plain HTTP."""
    house.start(wait=False)
    eventually(lambda: (house.home / "run" / "url").exists(), "it serves")
    eventually(lambda: house.run_cli("status").returncode == 0, "control answers")


def _port(house: House) -> int:
    return int(house.url.rpartition(":")[2])


def _serial(house: House, context: ssl.SSLContext) -> str:
    with _secured(house, context) as connection:
        found = connection.getpeercert()
        assert found is not None
        return str(found["serialNumber"])


def _secured(house: House, context: ssl.SSLContext) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", _port(house)), timeout=5)
    return context.wrap_socket(plain, server_hostname="localhost")


def test_a_renewed_certificate_is_taken_and_a_wrong_one_is_not(
    new_house: Make, papers: Papers
) -> None:
    house = new_house(empty=True, settings=papers.settings)
    _start(house)
    context = papers.context()
    first = eventually(lambda: _serial(house, context), "TLS")
    # HTTP/2 for those who ask; nothing older than TLS 1.2; nothing in the clear.
    context.set_alpn_protocols(["h2", "http/1.1"])
    with _secured(house, context) as connection:
        assert connection.selected_alpn_protocol() == "h2"
        assert connection.version() in ("TLSv1.2", "TLSv1.3")
    with socket.create_connection(("127.0.0.1", _port(house)), timeout=10) as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" not in plain.recv(100)
    # The command line on this machine needs no certificate, elsewhere the authority.
    there = ("status", "--url", f"https://localhost:{_port(house)}", "--key", house.key)
    assert house.run_cli(*there, "--ca", str(papers.ca)).returncode == 0
    refused = house.run_cli(*there)
    assert refused.returncode == 1
    assert "--ca" in refused.stderr

    keep = papers.key.read_text()
    papers.renew()
    right = papers.key.read_text()
    papers.key.write_text(keep)
    trouble = eventually(lambda: _trouble(house), "it is refused")
    assert "does not fit" in trouble
    assert "does not fit" in house.run_cli("restart").stderr
    assert _serial(house, papers.context()) == first
    papers.key.write_text(right)
    second = eventually(
        lambda: (now := _serial(house, papers.context())) != first and now, "the new one"
    )
    house.cli("restart")
    assert _serial(house, papers.context()) == second
    assert _trouble(house) is None
    assert len(list((house.home / "run" / "tls").iterdir())) == 1


def _trouble(house: House) -> str | None:
    snapshot = json.loads((house.home / "run" / "snapshot.json").read_text())
    found: str | None = house.call("GET", "/api/gateways", url=snapshot["control_url"]).json[
        "trouble"
    ]
    return found


def test_client_certificates_can_be_asked_for(new_house: Make, papers: Papers) -> None:
    house = new_house(empty=True, settings=f'{papers.settings}client_ca = "{papers.ca}"\n')
    _start(house)
    there = ("status", "--url", f"https://localhost:{_port(house)}", "--key", house.key)
    both = papers.folder / "both.pem"
    both.write_text(papers.client_key.read_text() + papers.client.read_text())
    trusted = (*there, "--ca", str(papers.ca))
    eventually(
        lambda: house.run_cli(*trusted, "--certificate", str(both)).returncode == 0, "let in"
    )
    stranger = (
        Papers(papers.folder / "other") if (papers.folder / "other").mkdir() is None else None
    )
    assert stranger is not None
    wrong = papers.folder / "wrong.pem"
    wrong.write_text(stranger.client_key.read_text() + stranger.client.read_text())
    assert house.run_cli(*trusted).returncode == 1
    assert house.run_cli(*trusted, "--certificate", str(wrong)).returncode == 1


def test_endpoints_with_certificates_of_their_own(new_house: Make, papers: Papers) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(papers.certificate, papers.key)
    context.load_verify_locations(papers.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    house = new_house(empty=True).start()
    with fake_engine(context) as engine:
        url, ca = ("--url", engine.url), ("--upstream-ca", str(papers.ca))
        ours = ("--upstream-certificate", str(papers.client),
                "--upstream-certificate-key", str(papers.client_key))  # fmt: skip
        house.cli("deploy", *url, *ca, *ours, "--as", "good", "--wait")
        house.cli("deploy", *url, *ca, "--as", "nobody", "--wait")
        house.cli("deploy", *url, *ours, "--as", "untrusted", "--wait")
        assert house.chat(model="good").json["usage"]["total_tokens"] == 4
        for name in ("nobody", "untrusted"):
            answer = house.chat(model=name)
            assert (answer.status, answer.error["src"]) == (503, "freehold"), name
        shutil.copy(papers.client, papers.client_key)
        answer = house.chat(model="good")
        assert answer.error["code"] == "unavailable.upstream_tls"
    half = {"name": "x", "urls": [engine.url], "upstream_certificate": "/a"}
    assert house.call("PUT", "/api/deployments/x", half).status == 400
    plain = {"name": "x", "urls": ["http://a/v1"], "upstream_ca": "/a"}
    assert house.call("PUT", "/api/deployments/x", plain).status == 400


@pytest.mark.parametrize(
    ("arguments", "settings", "says"),
    [
        (("--host", "0.0.0.0"), "", "insecure"),
        ((), '[server]\ntls_certificate = "/not/there"\n', "both"),
        ((), '[server]\ntls_certificate = "/not/there"\ntls_key = "/nor/this"\n', "cannot read"),
        ((), '[server]\ntrusted_proxies = ["10.0.0.1/8"]\n', "trusted_proxies"),
        ((), '[server]\ncors_origins = ["app.example"]\n', "cors_origins"),
    ],
)
def test_what_is_not_safe_does_not_start(
    new_house: Make, arguments: tuple[str, ...], settings: str, says: str
) -> None:
    house = new_house(*arguments, empty=True, settings=settings).start(wait=False)
    assert house.control is not None
    assert house.control.wait(30) == 1
    assert says in house.log
    assert "Traceback" not in house.log


# Replacing gateways under load


@contextmanager
def hammering(house: House, clients: int) -> Iterator[dict[str, list[object]]]:
    """Ask without a pause over kept connections, as clients that retry nothing."""
    stop = threading.Event()
    found: dict[str, list[object]] = {"ok": [], "failed": []}
    headers = {"authorization": f"Bearer {house.key}", "content-type": "application/json"}
    body, port = json.dumps(QUESTION), _port(house)

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        while not stop.is_set():
            try:
                connection.request("POST", "/v1/chat/completions", body, headers)
                with connection.getresponse() as answer:
                    text = answer.read()
                found["ok" if answer.status == 200 else "failed"].append(text)
            except (OSError, http.client.HTTPException) as error:
                found["failed"].append(error)
                connection.close()
            time.sleep(0.005)
        connection.close()

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)


def _rolls(house: House) -> bool:
    return bool(house.call("GET", "/api/gateways").json["rolling"])


@pytest.mark.parametrize("workers", ["1", "2", "4"])
def test_no_request_fails_while_all_gateways_are_replaced(new_house: Make, workers: str) -> None:
    house = new_house("--workers", workers, empty=True).start()
    with fake_engine() as engine:
        house.cli("deploy", "--url", engine.url, "--as", "fake", "--wait")
        before = house.gateways()
        assert len(before) == int(workers)
        with hammering(house, 4) as found:
            eventually(lambda: len(found["ok"]) > 50, "load")
            for number in range(3):  # snapshots are swapped meanwhile
                other = {"name": f"other-{number}", "urls": [engine.url]}
                assert house.call("PUT", f"/api/deployments/other-{number}", other).status == 200
            assert house.call("POST", "/api/gateways/restart").status == 202
            eventually(lambda: not _rolls(house), "all are replaced")
            assert house.call("DELETE", "/api/deployments/other-1").status == 200
            seen = len(found["ok"])
            eventually(lambda: len(found["ok"]) > seen + 20, "answers after it")
        assert found["failed"] == []
        after = house.gateways()
        assert len(after) == int(workers)
        assert not set(before) & set(after)


def test_a_stream_runs_to_its_end_while_its_gateway_is_replaced(new_house: Make) -> None:
    house = new_house("--workers", "1", empty=True).start()
    with fake_engine() as engine:
        house.cli("deploy", "--url", engine.url, "--as", "fake", "--wait")
        asked = {**QUESTION, "stream": True, "max_tokens": 100, "seed": 30}
        answers: list[bytes] = []
        url, key = house.url, house.key
        reading = threading.Thread(
            target=lambda: answers.append(
                house.call("POST", "/v1/chat/completions", asked, key=key, url=url).body
            )
        )
        reading.start()
        eventually(lambda: engine.running, "it runs")
        house.cli("restart")
        reading.join(30)
        assert answers[0].endswith(b"data: [DONE]\n\n")


def test_a_stream_that_outlasts_the_grace_is_ended_and_recorded(new_house: Make) -> None:
    settings = "[server]\nshutdown_grace = 1.0\n"
    house = new_house("--workers", "1", empty=True, settings=settings).start()
    with fake_engine() as engine:
        house.cli("deploy", "--url", engine.url, "--as", "fake", "--wait")
        asked = {**QUESTION, "stream": True, "max_tokens": 2000, "seed": 30}
        url, key, bodies = house.url, house.key, []

        def read() -> None:
            try:
                bodies.append(house.call("POST", "/v1/chat/completions", asked, key=key, url=url))
            except (OSError, http.client.HTTPException) as error:
                bodies.append(error)  # type: ignore[arg-type]

        reading = threading.Thread(target=read)
        reading.start()
        eventually(lambda: engine.running, "it runs")
        house.cli("restart")
        reading.join(30)
        eventually(lambda: house.audit(deployment="fake"), "the record")
        assert house.audit(deployment="fake")[0]["error"] == "unavailable.stopping"
        eventually(lambda: not engine.running, "the engine is free")


def test_settings_that_are_wrong_change_nothing(new_house: Make) -> None:
    house = new_house(empty=True).start()
    before = house.gateways()
    (house.home / "freehold.toml").write_text("[server]\nbody_limt = 3\n")
    refused = house.run_cli("restart")
    assert refused.returncode == 1
    assert "did you mean body_limit" in refused.stderr
    (house.home / "freehold.toml").write_text("[server]\nbody_limit = 30\n")
    time.sleep(0.3)
    assert house.gateways() == before
    house.cli("restart")
    assert house.chat().status == 413
    assert house.gateways() != before
