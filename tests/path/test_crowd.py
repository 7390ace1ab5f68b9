"""Thousands of connections that do nothing, or too much: nobody else is kept out, and who is
refused is told so.
"""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest

from tests.fake_engine import FakeEngine, fake_engine
from tests.house import Answer, House, eventually

MOST, EACH = 60, 30
SETTINGS = f"""
[server]
connections = {MOST}
connections_per_peer = {EACH}
idle_timeout = 30.0
"""
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def engine() -> Iterator[FakeEngine]:
    with fake_engine() as found:
        yield found


@pytest.fixture(scope="module")
def door(engine: FakeEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    home = tmp_path_factory.mktemp("crowd") / "home"
    home.mkdir()
    (home / "freehold.toml").write_text(SETTINGS)
    house = House(home)
    try:
        house.start()
        house.cli("deploy", "--url", engine.url, "--as", "fake", "--wait")
        yield house
    finally:
        house.close()


@pytest.fixture
def connect(door: House) -> Iterator[Callable[[str], socket.socket]]:
    """Open connections to the house, from addresses of this machine's loopback network."""
    port = int(door.url.rpartition(":")[2])
    with ExitStack() as stack:

        def make(source: str = "127.0.0.1") -> socket.socket:
            made = socket.create_connection(("127.0.0.1", port), 10, source_address=(source, 0))
            return stack.enter_context(made)

        yield make
    eventually(lambda: _connections(door) <= 2, "all are gone", 20)


def _connections(house: House) -> int:
    (now,) = house.call("GET", "/api/gateways").json["gateways"]
    found: int = now["connections"]
    return found


def _read(connection: socket.socket) -> Answer | None:
    """Return an answer, None where the connection was closed."""
    data = b""
    with suppress(ConnectionError):
        while b"\r\n\r\n" not in data:
            piece = connection.recv(65536)
            if not piece:
                return None
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        lines = [line.split(": ", 1) for line in head.decode().split("\r\n")[1:]]
        headers = {name.lower(): value for name, value in lines}
        while len(body) < int(headers["content-length"]):
            body += connection.recv(65536)
        return Answer(int(head.split()[1]), headers, body)
    return None


def _is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


def test_idle_connections_of_one_address_keep_nobody_out(
    door: House, connect: Callable[[str], socket.socket]
) -> None:
    """More than the server itself would hold: it is free again within a moment."""
    silent = [connect("127.0.0.7") for _ in range(3 * MOST)]
    for connection in silent[::2]:
        with suppress(OSError):
            connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n")
    begun = time.monotonic()
    assert door.chat(model="fake").status == 200
    assert time.monotonic() - begun < 8
    eventually(lambda: sum(map(_is_open, silent)) <= EACH, "no more than allowed", 20)
    assert sum(map(_is_open, silent)) > 0
    log = "".join(path.read_text() for path in (door.home / "logs").glob("gateway*"))
    assert "connections_per_peer" in log
    assert "127.0.0.7" in log


def test_those_that_were_used_last_stay(
    door: House, connect: Callable[[str], socket.socket]
) -> None:
    used: list[socket.socket] = []
    for _ in range(EACH + 10):
        used.append(connect("127.0.0.8"))
        used[-1].sendall(HEALTH)
        answer = _read(used[-1])
        assert answer is not None
        assert answer.status == 200  # room is made by those that do nothing
    assert [_is_open(each) for each in used[-5:]] == [True] * 5
    eventually(lambda: sum(map(_is_open, used)) <= EACH, "the oldest are closed", 10)
    assert not any(map(_is_open, used[:5]))


def _busy(door: House, connection: socket.socket) -> socket.socket:
    asked = {
        "model": "fake", "messages": [{"role": "user", "content": "x"}], "stream": True,
        "max_tokens": 2000, "seed": 20,
    }  # fmt: skip
    body = json.dumps(asked).encode()
    connection.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (door.key.encode(), len(body), body)
    )
    assert connection.recv(12) == b"HTTP/1.1 200"
    return connection


def test_an_address_whose_connections_all_work_is_told_that_it_has_enough(
    door: House, connect: Callable[[str], socket.socket], engine: FakeEngine
) -> None:
    busy = [_busy(door, connect("127.0.0.9")) for _ in range(EACH)]
    for _ in range(3):
        one_more = connect("127.0.0.9")
        one_more.sendall(HEALTH)
        refused = _read(one_more)
        assert refused is not None
        assert (refused.status, refused.error["code"]) == (429, "quota.connections")
        assert "127.0.0.9" in refused.error["message"]
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["connection"] == "close"
        assert _read(one_more) is None
    other = connect("127.0.0.10")
    other.sendall(HEALTH)
    answer = _read(other)
    assert answer is not None
    assert answer.status == 200
    assert all(map(_is_open, busy))
    for connection in busy:
        connection.close()
    eventually(lambda: not engine.running, "they end", 20)
    again = connect("127.0.0.9")
    again.sendall(HEALTH)
    answer = _read(again)
    assert answer is not None
    assert answer.status == 200


def test_when_all_are_taken_by_work_newcomers_are_told_so(
    door: House, connect: Callable[[str], socket.socket], engine: FakeEngine
) -> None:
    sources = [f"127.0.1.{number % 3}" for number in range(MOST)]
    busy = [_busy(door, connect(source)) for source in sources]
    late = connect("127.0.1.9")
    late.sendall(HEALTH)
    refused = _read(late)
    assert refused is not None
    assert (refused.status, refused.error["code"]) == (503, "unavailable.connections")
    assert refused.headers["retry-after"] == "1"
    for connection in busy:
        connection.close()
    eventually(lambda: not engine.running, "they end", 20)
