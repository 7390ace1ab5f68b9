"""The front door against clients that are slow, broken or hostile: raw sockets, real processes.

After each test no connection may be left in the gateway, and at the end no request and no task.
"""

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psutil
import pytest

from tests.fake_engine import FakeEngine, fake_engine
from tests.house import House, eventually

SETTINGS = """
[server]
idle_timeout = 1.0
body_timeout = 1.0
send_timeout = 1.0
url_limit = 2000
head_limit = 16384
streams = 5
cors_origins = ["https://app.example"]
trusted_proxies = ["127.0.0.1/32", "10.0.0.0/8"]
"""
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n"
QUESTION = {"model": "fake", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}


@pytest.fixture(scope="module")
def engine() -> Iterator[FakeEngine]:
    with fake_engine() as found:
        yield found


@pytest.fixture(scope="module")
def door(engine: FakeEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    home = tmp_path_factory.mktemp("door") / "home"
    home.mkdir()
    (home / "freehold.toml").write_text(SETTINGS)
    house = House(home)
    try:
        house.start()
        house.cli("deploy", "--url", engine.url, "--as", "fake", "--wait")
        (before,) = house.call("GET", "/api/gateways").json["gateways"]
        yield house
        eventually(lambda: _is_quiet(house, before["tasks"]), "no request, no task left", 10)
        assert "Traceback" not in house.log
        for log in (house.home / "logs").glob("gateway*"):
            assert all('"level":"warning"' in line for line in log.read_text().splitlines())
    finally:
        house.close()


@pytest.fixture(autouse=True)
def nothing_stays(door: House, engine: FakeEngine) -> Iterator[None]:
    yield
    eventually(lambda: not _connections(door), "no connection left in the gateway", 10)
    eventually(lambda: not engine.running, "nothing left at the engine", 10)


def _is_quiet(house: House, tasks: int) -> bool:
    (now,) = house.call("GET", "/api/gateways").json["gateways"]
    return now["inflight"] == 0 and now["requests"] <= 1 and now["tasks"] <= tasks + 4


def _connections(house: House) -> list[object]:
    port = int(house.url.rpartition(":")[2])
    (pid,) = house.gateways()
    return [
        each
        for each in psutil.Process(pid).net_connections("tcp")
        if each.laddr.port == port and each.status != psutil.CONN_LISTEN
    ]


def _connect(house: House) -> socket.socket:
    host, _, port = house.url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=8)


def _until_closed(connection: socket.socket) -> bytes:
    found = b""
    while piece := connection.recv(65536):
        found += piece
    return found


def _raw(house: House, *pieces: bytes, pause: float = 0.0) -> bytes:
    """Send pieces and return everything until the other end closes."""
    found = b""
    with _connect(house) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)
            while data := connection.recv(65536):
                found += data
        except ConnectionError:
            pass
    return found


def _statuses(answer: bytes) -> list[int]:
    return [int(line.split()[1]) for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]


def _post(house: House, body: bytes, extra: bytes = b"") -> bytes:
    head = HEAD % house.key.encode()
    return head + extra + b"Content-Length: %d\r\n\r\n" % len(body) + body


# One request, one meaning

CHUNKED = b"Transfer-Encoding: chunked\r\n"
NEXT = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("two lengths", b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
        ("a list of lengths", b"Content-Length: 3, 3\r\n\r\nabc"),
        ("a signed length", b"Content-Length: +3\r\n\r\nabc"),
        ("an unknown coding", b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        ("chunked is not last", b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
        ("compressed chunks", b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        ("chunked and more", CHUNKED + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n"),
        ("a blank before the colon", b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        ("another blank", b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n"),
        ("a folded line", b"X-A: b\r\n c\r\nContent-Length: 0\r\n\r\n"),
        ("a bare return", b"X-A: b\rc\r\nContent-Length: 0\r\n\r\n"),
        ("a zero byte", b"X-A: b\x00c\r\nContent-Length: 0\r\n\r\n"),
        ("a second host", b"Host: y\r\nContent-Length: 0\r\n\r\n"),
        ("a chunk size too big", CHUNKED + b"\r\nFFFFFFFFFFFFFFFFF\r\na\r\n0\r\n\r\n"),
        ("a negative chunk", CHUNKED + b"\r\n-1\r\na\r\n0\r\n\r\n"),
        ("a bare line feed in a chunk's head", CHUNKED + b"\r\n1;a\nb\r\na\r\n0\r\n\r\n"),
        ("chunks by line feeds", CHUNKED + b"\r\n1\na\n0\n\n"),
    ],
)
def test_what_could_mean_two_things_is_refused(door: House, name: str, data: bytes) -> None:
    found = _raw(door, HEAD % door.key.encode() + data)
    assert _statuses(found) == [400], name


@pytest.mark.parametrize(
    "both",
    [b"Content-Length: 3\r\n" + CHUNKED, CHUNKED + b"Content-Length: 60\r\n"],
    ids=["length first", "chunked first"],
)
def test_a_length_beside_chunks_hides_no_second_request(door: House, both: bytes) -> None:
    found = _raw(door, HEAD % door.key.encode() + both + b"\r\n1\r\n{\r\n0\r\n\r\n" + NEXT)
    assert _statuses(found) == [400]
    assert b"smuggled" not in found


def test_a_body_of_a_get_is_no_second_request(door: House) -> None:
    head = b"GET /v1/models HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(NEXT)
    found = _raw(door, head + NEXT)
    assert _statuses(found) == [401]


@pytest.mark.parametrize(
    ("data", "statuses"),
    [
        (b"GET /healthz HTTP/1.1\r\n\r\n", [400]),
        (b"GET /\r\n\r\n", [400]),
        (b"\x16\x03\x01\x02\x00\x01\x00", [400]),
        (b"CONNECT evil:80 HTTP/1.1\r\nHost: x\r\n\r\n", [404]),
        (b"GET http://evil/healthz HTTP/1.1\r\nHost: x\r\n\r\n", [200]),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X-A: b\r\n" * 120 + b"\r\n", [431]),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: " + b"b" * 20000 + b"\r\n\r\n", [431]),
        (b"GET /" + b"a" * 2500 + b" HTTP/1.1\r\nHost: x\r\n\r\n", [413]),
        (b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", [431]),
        (b"GET /healthz HTTP/1.1\nHost: x\n\n", [200]),
        (b"GET /%00%ff/../healthz HTTP/1.1\r\nHost: x\r\n\r\n", [404]),
    ],
)
def test_odd_heads(door: House, data: bytes, statuses: list[int]) -> None:
    assert _statuses(_raw(door, data)) == statuses


def test_nothing_of_a_request_gets_into_the_head_of_the_answer(door: House) -> None:
    model = "no\r\nx-evil: 1"
    body = json.dumps({**QUESTION, "model": model}).encode()
    extra = b"X-Freehold-Request: mine\r\nX-Freehold-Client: 6.6.6.6\r\nConnection: close\r\n"
    found = _raw(door, _post(door, body, extra))
    head = found.partition(b"\r\n\r\n")[0].lower()
    assert b"x-evil" not in head
    assert b"x-freehold-request: req-" in head
    assert b"server: freehold" in head
    assert b"x-content-type-options: nosniff" in head
    record = door.audit(limit="1")[0]
    assert record["client"].startswith("127.0.0.1")


def test_an_act_of_administration_has_one_meaning(door: House) -> None:
    body = b'{"principal": "a", "role": "developer", "role": "admin"}'
    answer = door.call("POST", "/api/keys", body)
    assert (answer.status, answer.error["code"]) == (400, "invalid.json")
    assert "role" in answer.error["message"]


# Slow clients


@pytest.mark.parametrize(
    "data",
    [b"", b"P", b"PRI * HTTP/2.0\r\n\r\nSM", b"GET / HTTP/1.1\r\nHos"],
    ids=["nothing", "a byte", "half a preface", "half a head"],
)
def test_a_head_that_does_not_come_is_not_waited_for(door: House, data: bytes) -> None:
    begun = time.monotonic()
    assert _statuses(_raw(door, data)) in ([], [408])
    assert time.monotonic() - begun < 8


def test_an_idle_connection_is_closed(door: House) -> None:
    found = _raw(door, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert _statuses(found) == [200]


@pytest.mark.parametrize("extra", [b"Content-Length: 500\r\n\r\n", CHUNKED + b"\r\n40\r\n"])
def test_a_body_that_drips_is_not_waited_for(door: House, extra: bytes) -> None:
    drops = [b"{"] * 5
    found = _raw(door, HEAD % door.key.encode() + extra, *drops, pause=0.15)
    assert _statuses(found) == [408]
    assert b"invalid.body_too_slow" in found
    assert door.audit(limit="1")[0]["error"] == "invalid.body_too_slow"


def test_a_body_that_breaks_off_is_no_body(door: House) -> None:
    with _connect(door) as connection:
        connection.sendall(HEAD % door.key.encode() + b"Content-Length: 500\r\n\r\n{")
        time.sleep(0.1)
    eventually(lambda: door.audit(limit="1")[0]["outcome"] == "cancelled", "it is recorded")


def test_a_client_that_reads_nothing_is_left(door: House, engine: FakeEngine) -> None:
    """Its stream is ended within the time it has to take something, and recorded."""
    asked = {**QUESTION, "stream": True, "max_tokens": 4000, "seed": 1, "stop": "8000"}
    with _connect(door) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(_post(door, json.dumps(asked).encode()))
        eventually(lambda: engine.running, "it runs", 10)
        eventually(lambda: not engine.running, "it was ended", 20)
        record = eventually(lambda: door.audit(limit="1", deployment="fake")[0], "the record")
    assert (record["outcome"], record["status"]) == ("cancelled", 499)
    assert record["tokens_out"] < 4000


def test_many_half_open_connections_keep_nobody_out(door: House) -> None:
    held = [_connect(door) for _ in range(200)]
    try:
        for connection in held:
            connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n")
        assert _ask(door) == 200
    finally:
        for connection in held:
            connection.close()


def _ask(house: House) -> int:
    return house.call("POST", "/v1/chat/completions", QUESTION).status


# Pages of other origins, proxies


def test_a_page_of_an_allowed_origin_may_call(door: House) -> None:
    origin = {"origin": "https://app.example"}
    asks = {**origin, "access-control-request-method": "POST"}
    asked = door.call("OPTIONS", "/v1/chat/completions", key=None, headers=asks)
    assert asked.status == 204
    assert asked.headers["access-control-allow-origin"] == "https://app.example"
    assert "authorization" in asked.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in asked.headers
    answer = door.call("POST", "/v1/chat/completions", QUESTION, headers=origin)
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert answer.headers["vary"] == "origin"
    refused = door.call("GET", "/v1/models", key="wrong", headers=origin)
    assert refused.status == 401
    assert refused.headers["access-control-allow-origin"] == "https://app.example"


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://app.example.evil"])
def test_a_page_of_another_origin_may_not(door: House, origin: str) -> None:
    asks = {"origin": origin, "access-control-request-method": "POST"}
    asked = door.call("OPTIONS", "/v1/chat/completions", key=None, headers=asks)
    assert (asked.status, asked.error["code"]) == (403, "forbidden.origin")
    answer = door.call("GET", "/v1/models", headers={"origin": origin})
    assert "access-control-allow-origin" not in asked.headers | answer.headers
    assert answer.headers["vary"] == "origin"


def test_the_client_is_whom_trusted_proxies_name(door: House) -> None:
    headers = {"x-forwarded-for": "6.6.6.6, 203.0.113.9, 10.1.1.1"}
    answer = door.call("POST", "/v1/chat/completions", QUESTION, headers=headers)
    record = door.audit(id=answer.headers["x-freehold-request"])[0]
    assert record["client"] == "203.0.113.9"
    acted = door.call("GET", "/api/keys", headers=headers)
    record = door.audit(id=acted.headers["x-freehold-request"])[0]
    assert record["client"] == "203.0.113.9"


# HTTP/2


def test_streams_that_are_reset_at_once_leave_nothing_behind(door: House) -> None:
    from h2.config import H2Configuration
    from h2.connection import H2Connection

    body = json.dumps({**QUESTION, "seed": 600}).encode()
    h2 = H2Connection(H2Configuration(client_side=True))
    h2.initiate_connection()
    with _connect(door) as connection:
        with suppress(OSError):  # the server may have had enough: that is as good
            for _ in range(300):
                stream = h2.get_next_available_stream_id()
                h2.send_headers(stream, _h2_head(door))
                h2.send_data(stream, body, end_stream=True)
                h2.reset_stream(stream)
                connection.sendall(h2.data_to_send())
        assert _ask(door) == 200
        (now,) = door.call("GET", "/api/gateways").json["gateways"]
        assert now["inflight"] <= 5


def test_more_streams_than_allowed_are_refused(door: House, engine: FakeEngine) -> None:
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.events import ResponseReceived, StreamReset

    body = json.dumps({**QUESTION, "seed": 300}).encode()
    h2 = H2Connection(H2Configuration(client_side=True))
    h2.initiate_connection()
    ended: list[object] = []
    with _connect(door) as connection:
        for _ in range(12):
            stream = h2.get_next_available_stream_id()
            h2.send_headers(stream, _h2_head(door))
            h2.send_data(stream, body, end_stream=True)
        connection.sendall(h2.data_to_send())
        while len(ended) < 12:
            happened = h2.receive_data(connection.recv(65536))
            ended += [e for e in happened if isinstance(e, ResponseReceived | StreamReset)]
            connection.sendall(h2.data_to_send())
    answered = [e for e in ended if isinstance(e, ResponseReceived)]
    assert len([e for e in answered if dict(e.headers)[b":status"] == b"200"]) <= 6
    assert len(answered) < 12 or engine.running <= 6


def _h2_head(house: House) -> list[tuple[str, str]]:
    return [
        (":method", "POST"), (":path", "/v1/chat/completions"), (":scheme", "http"),
        (":authority", "x"), ("authorization", f"Bearer {house.key}"),
        ("content-type", "application/json"),
    ]  # fmt: skip


def test_a_lost_http2_connection_ends_all_its_requests(door: House, engine: FakeEngine) -> None:
    from h2.config import H2Configuration
    from h2.connection import H2Connection

    asked = {**QUESTION, "stream": True, "max_tokens": 500, "seed": 20}
    h2 = H2Connection(H2Configuration(client_side=True))
    h2.initiate_connection()
    with _connect(door) as connection:
        for _ in range(4):
            stream = h2.get_next_available_stream_id()
            h2.send_headers(stream, _h2_head(door))
            h2.send_data(stream, json.dumps(asked).encode(), end_stream=True)
        connection.sendall(h2.data_to_send())
        eventually(lambda: engine.running == 4, "they run", 10)
    eventually(lambda: not engine.running, "all have ended", 5)
    outcomes = [record["outcome"] for record in door.audit(limit="4", deployment="fake")]
    assert outcomes == ["cancelled"] * 4


def test_an_idle_http2_connection_is_closed(door: House) -> None:
    from h2.connection import H2Connection

    h2 = H2Connection()
    h2.initiate_connection()
    assert b"HTTP/1.1" not in _raw(door, h2.data_to_send())


def test_answers_go_on_beside_all_of_this(door: House) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: _ask(door), range(60))) == {200}
