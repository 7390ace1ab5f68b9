"""Hostile engines and hasty clients before a whole house: nothing stays behind, whatever they do.

After each test no request runs, no slot is taken and nothing is reserved.
"""

import asyncio
import json
import re
import resource
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from freehold.cli.limits import entry
from freehold.policy.cells import RING, Cells
from tests.house import QUESTION, Answer, House, eventually
from tests.rude import EVENTS, OK, Rude, Say, chunk

SETTINGS = """
[runtime]
connect_timeout = 1.0
headers_timeout = 2.0
first_token_timeout = 2.0
token_timeout = 1.0
total_timeout = 5.0
retries = 0
"""


def document(text: str) -> bytes:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    head = {"id": "x", "object": "chat.completion", "created": 1, "model": "m"}
    return json.dumps({**head, "choices": [choice], "usage": usage}).encode()


def event(content: str | None = None, reason: str | None = None, **fields: object) -> bytes:
    delta = {} if content is None else {"content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return b"data: %b\n\n" % json.dumps({**head, "choices": [choice], **fields}).encode()


DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}


def answers(request: bytes, text: str) -> bytes:
    """Return a well-behaved answer, as the request wants it."""
    if b'"stream":true' in request:
        events = event(text) + event(reason="stop") + event(choices=[], usage=USAGE) + DONE
        return EVENTS + chunk(events) + chunk(b"")
    body = document(text)
    head = b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    return OK + head + body


async def well(request: bytes, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(answers(request, "Hello"))


async def slow(request: bytes, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(0.3)
    writer.write(answers(request, "Hello"))


async def slower(request: bytes, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(1.0)
    writer.write(answers(request, "Hello"))


async def paced(request: bytes, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A piece every few milliseconds, in chunks that end anywhere."""
    data = answers(request, "Hello")
    for at in range(0, len(data), 40):
        writer.write(data[at : at + 40])
        await asyncio.sleep(0.003)


async def chatty(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """It says a lot once all is said, as some do."""
    after = event("") + event(choices=[]) + event("", usage=USAGE) + event(reason="stop")
    writer.write(EVENTS + chunk(event("Hello") + event(reason="stop")))
    await asyncio.sleep(0.02)
    writer.write(chunk(after) + chunk(DONE) + chunk(event("more") + b"\n\n") + chunk(b""))


GO = threading.Event()


async def dying(request: bytes, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """It begins, where it streams, and is gone when it is told to."""
    if b'"stream":true' in request:
        writer.write(EVENTS + chunk(event("Hel")))
    while not GO.is_set():
        await asyncio.sleep(0.01)
    writer.transport.abort()


def words_of(request: bytes) -> str:
    found: str = json.loads(request.partition(b"\r\n\r\n")[2])["messages"][0]["content"]
    return found


async def moody(request: bytes, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """It says what it was asked, each time with other manners, on connections that last or not."""
    text = words_of(request)
    data, mood = answers(request, text), zlib.crc32(text.encode()) % 8
    if mood == 1:
        data = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + data
    elif mood == 2:
        data = data.replace(b"\r\ncontent-type", b"\r\nconnection: close\r\ncontent-type", 1)
    elif mood == 3:
        data += answers(request, "unasked for")
    cut = zlib.crc32(data) % len(data)
    writer.write(data[:cut])
    await writer.drain()
    await asyncio.sleep(0.002)
    writer.write(data[cut:])
    await writer.drain()
    if mood == 4:
        writer.write(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n")
    elif mood == 5 and writer.can_write_eof():
        writer.write_eof()
    if mood in (2, 6):
        writer.close()


ENGINES: dict[str, Say] = {
    "chatty": chatty,
    "dying": dying,
    "moody": moody,
    "paced": paced,
    "slow": slow,
    "slower": slower,
    "well": well,
}


@pytest.fixture(scope="module")
def rude() -> Iterator[Rude]:
    with Rude(ENGINES) as server:
        yield server


@pytest.fixture(scope="module")
def place(rude: Rude, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    home = tmp_path_factory.mktemp("hostile") / "home"
    home.mkdir()
    (home / "freehold.toml").write_text(SETTINGS)
    house = House(home)
    try:
        yield house.start()
        assert "Traceback" not in (house.home / "logs" / "gateway-0.log").read_text()
    finally:
        house.close()


@pytest.fixture(autouse=True)
def nothing_stays(place: House) -> Iterator[None]:
    yield
    eventually(lambda: not left(place), f"nothing left: {left(place)}", 10)


def left(house: House) -> dict[str, float]:
    """Return what is still counted as running, by name; but for the question itself."""
    text = house.call("GET", "/metrics").body.decode()
    gauges = re.findall(r"^(freehold_(?:open|running)_requests)(\S*) (\S+)", text, re.MULTILINE)
    found = {f"{name}{labels}": float(value) for name, labels, value in gauges}
    found["freehold_open_requests"] -= 1
    cells = Cells(house.home / "run" / "quotas", 0, 1)
    try:
        for deployment in house.call("GET", "/api/status").json["deployments"]:
            name = f"line:{deployment['name']}"
            found[name] = sum(cells.shared(name)[0::RING])
    finally:
        cells.close()
    for each in house.call("GET", "/api/limits").json:
        found[f"{each['of']} {each['measure']}"] = each["reserved"]
    return {name: value for name, value in found.items() if value}


def deploy(house: House, name: str, *urls: str, **fields: Any) -> None:
    body = {"name": name, "urls": urls, "replicas": len(urls), **fields}
    assert house.call("PUT", f"/api/deployments/{name}", body).status == 200
    assert house.call("GET", f"/api/deployments/{name}?wait=10").json["state"] == "ready"


def ask(
    house: House,
    model: str,
    *,
    stream: bool = False,
    messages: list[dict[str, str]] = QUESTION,
    key: str = "admin",
    **headers: str,
) -> Answer:
    body = {"model": model, "messages": messages, "temperature": 0, "stream": stream}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return house.call("POST", "/v1/chat/completions", body, key=key, headers=named, timeout=20)


@pytest.mark.parametrize(
    ("path", "words", "end"),
    [
        ("/v1/chat/completions", {"messages": QUESTION}, b"data: [DONE]"),
        ("/v1/messages", {"messages": QUESTION, "max_tokens": 9}, b"event: message_stop"),
        ("/v1/responses", {"input": "Hi"}, b"response.completed"),
    ],
)
def test_an_engine_that_goes_on_after_the_end_has_answered(
    place: House, rude: Rude, path: str, words: dict[str, Any], end: bytes
) -> None:
    deploy(place, "chatty", rude.base("chatty"))
    answer = place.call("POST", path, {"model": "chatty", "stream": True, **words})
    assert answer.status == 200
    assert end in answer.body
    assert b"error" not in answer.body.replace(b'"error":null', b"")
    assert b"more" not in answer.body
    (record,) = place.audit(id=answer.headers["x-freehold-request"])
    assert (record["outcome"], record["tokens_in"], record["tokens_out"]) == ("ok", 3, 1)


def test_whatever_connections_suffer_everybody_gets_their_own_answer(
    place: House, rude: Rude
) -> None:
    deploy(place, "moody", rude.base("moody", "a"), rude.base("moody", "b"))

    def talk(client: int) -> None:
        for number in range(30):
            text = f"{client} says {number}"
            asked = [{"role": "user", "content": text}]
            answer = ask(place, "moody", stream=bool(number % 2), messages=asked)
            assert answer.status == 200, answer.body
            assert f'"content":"{text}"' in answer.body.decode().replace(": ", ":")

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(talk, range(12)))
    assert rude.asked["moody.a"] + rude.asked["moody.b"] < 500  # nearly all were asked once


def send(house: House, model: str, key: str, *, stream: bool) -> socket.socket:
    """Send a request and return the connection; nothing is read."""
    body = json.dumps({"model": model, "messages": QUESTION, "stream": stream}).encode()
    head = f"authorization: Bearer {key}\r\ncontent-length: {len(body)}\r\n"
    host, _, port = house.url.removeprefix("http://").rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    begin = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n{head}\r\n"
    connection.sendall(begin.encode() + body)
    return connection


@pytest.mark.parametrize("stream", [False, True])
def test_clients_that_hang_up_at_any_moment_leave_nothing(
    place: House, rude: Rude, stream: bool
) -> None:
    """In line, while connecting, before and between words, while a hedge is decided, at the end."""
    urls = [rude.base("paced", f"h{number}") for number in range(3)]
    deploy(place, "left", *urls, slots=6, hedge_ms=15)
    key = place.make_key("developer", team="leavers")
    limits = {
        "limits": [entry("team:leavers", text) for text in ("tokens=1000000", "concurrency=9")]
    }
    assert place.call("PUT", "/api/limits", limits).status == 200

    def leave(number: int) -> None:
        with send(place, "left", key, stream=stream):
            time.sleep(number * 0.0006)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(leave, range(120)))
    assert ask(place, "left", stream=stream).status == 200


def test_who_waits_in_line_takes_one_place_though_it_would_be_asked_twice(
    place: House, rude: Rude
) -> None:
    deploy(place, "narrow", rude.base("slow", "a"), rude.base("slow", "b"), slots=2, hedge_ms=30)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: ask(place, "narrow"), range(6)))
    assert [answer.status for answer in answers] == [200] * 6


def test_a_line_is_no_excuse_for_being_late(place: House, rude: Rude) -> None:
    deploy(place, "single", rude.base("slow", "c"), slots=1)
    with ThreadPoolExecutor(4) as pool:
        first = [pool.submit(ask, place, "single") for _ in range(3)]
        time.sleep(0.1)
        begun = time.monotonic()
        late = ask(place, "single", x_freehold_timeout="0.1")
        assert time.monotonic() - begun < 0.5
        assert (late.status, late.error["code"]) == (503, "unavailable.busy")
        assert [each.result().status for each in first] == [200] * 3


def test_a_hasty_client_says_nothing_against_a_replica(place: House, rude: Rude) -> None:
    """Each of these closes its connection, so the next must connect, and has no time to."""
    deploy(place, "hasty", rude.base("slow", "d"), rude.base("slow", "e"))
    for _ in range(12):
        answer = ask(place, "hasty", x_freehold_timeout="0.000001")
        assert (answer.status, answer.error["code"]) == (504, "unavailable.total_deadline")
    assert {each["circuit"] for each in place.deployment("hasty")["replicas"]} == {"closed"}
    assert ask(place, "hasty").status == 200


def test_a_record_that_cannot_be_written_ends_all_that_waited_for_it(
    place: House, rude: Rude
) -> None:
    """Streams and whole answers of one batch: nobody is told that all went well."""
    deploy(place, "slow", rude.base("slow", "j"))
    key = place.make_key("developer", team="unlucky")
    body = {"limits": [entry("team:unlucky", "tokens=100000")]}
    assert place.call("PUT", "/api/limits", body).status == 200
    (gateway,) = place.gateways()
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, place, "slow", stream=bool(n % 2), key=key) for n in range(8)]
        time.sleep(0.15)
        before = resource.prlimit(gateway, resource.RLIMIT_FSIZE)
        resource.prlimit(gateway, resource.RLIMIT_FSIZE, (1, before[1]))
        try:
            found = [each.result() for each in asked]
        finally:
            resource.prlimit(gateway, resource.RLIMIT_FSIZE, before)
    for number, answer in enumerate(found):
        assert b"unavailable.audit" in answer.body
        assert b"[DONE]" not in answer.body
        assert b'"finish_reason":"stop"' not in answer.body.replace(b" ", b"")
        assert answer.status == (200 if number % 2 else 503)
    assert ask(place, "slow", key=key).status == 200
    (limit,) = place.call("GET", "/api/limits?of=team:unlucky").json
    assert limit["spent"] == 9 * 4  # it was used, though nobody got it


def test_another_call_that_says_the_same_is_no_excuse_for_being_late(
    place: House, rude: Rude
) -> None:
    deploy(place, "kept", rude.base("slower", "k"), cache={"seconds": 60})
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, place, "kept")
        time.sleep(0.1)
        late = ask(place, "kept", x_freehold_timeout="0.05")
        assert not first.done()
        assert (late.status, late.error["code"]) == (504, "unavailable.total_deadline")
        assert first.result().status == 200


def test_clients_that_do_not_wait_for_answers_get_them_in_order(place: House, rude: Rude) -> None:
    deploy(place, "paced", rude.base("paced", "p"))
    deploy(place, "well", rude.base("well", "p"))
    bodies = [
        json.dumps({"model": model, "messages": QUESTION, "user": model}).encode()
        for model in ("paced", "well", "nobody", "well")
    ]
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {place.key}\r\n"
    host, _, port = place.url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        for each in bodies:
            connection.sendall(f"{head}content-length: {len(each)}\r\n\r\n".encode() + each)
        answers, found = connection.makefile("rb"), []
        for _ in bodies:
            status = int(answers.readline().split()[1])
            headers = dict(
                iter(lambda: answers.readline().strip().partition(b": ")[::2], (b"", b""))
            )
            answers.read(int(headers[b"content-length"]))
            found.append((status, headers.get(b"x-freehold-deployment")))
    assert found == [(200, b"paced"), (200, b"well"), (404, None), (200, b"well")]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("then", ["replaced", "removed"])
def test_a_deployment_may_change_while_its_replica_dies(
    place: House, rude: Rude, stream: bool, then: str
) -> None:
    name = f"{then}-{stream:d}"
    patient = {"headers_timeout": 30, "token_timeout": 30, "total_timeout": 60}
    deploy(place, name, rude.base("dying", name), **patient)
    GO.clear()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, place, name, stream=stream, prefer="wait=20")
        eventually(lambda: rude.asked[f"dying.{name}"], "it is asked")
        if then == "replaced":
            deploy(place, name, rude.base("well", name), **patient)
        else:
            assert place.call("DELETE", f"/api/deployments/{name}").status == 200
        GO.set()
        answer = asked.result()
    (record,) = place.audit(id=answer.headers["x-freehold-request"])
    if then == "replaced":
        text = answer.body.decode().replace(": ", ":")
        assert "".join(re.findall(r'"content":"([^"]*)"', text)) == "Hello"
        assert (record["outcome"], record["attempts"]) == ("ok", 2)
    else:
        assert b'"error"' in answer.body
        assert b"[DONE]" not in answer.body
        assert record["outcome"] != "ok"
