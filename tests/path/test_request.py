"""The path of a request, through real processes and real weights."""

import json
import socket
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.house import QUESTION, House, events, eventually

SCHEMA = {
    "type": "object",
    "properties": {"colour": {"type": "string", "enum": ["red", "blue"]}},
    "required": ["colour"],
}


def test_answers_with_usage_and_names_who_answered(house: House) -> None:
    answer = house.chat()
    assert answer.status == 200
    assert answer.json["object"] == "chat.completion"
    assert answer.json["choices"][0]["message"]["content"].strip()
    assert answer.json["usage"]["completion_tokens"] == 8
    assert answer.json["usage"]["total_tokens"] == answer.json["usage"]["prompt_tokens"] + 8
    assert answer.headers["x-freehold-deployment"] == "smol"
    assert answer.headers["x-freehold-request"].startswith("req-")


def test_stream_says_the_same_and_carries_usage_at_its_end(house: House) -> None:
    whole = house.chat().json["choices"][0]["message"]["content"]
    found = events(house.chat(stream=True).body)
    assert found[-1] == "[DONE]"
    text = "".join(e["choices"][0]["delta"].get("content") or "" for e in found[:-1])
    assert text == whole
    assert found[-2]["choices"][0]["finish_reason"] == "length"
    assert found[-2]["usage"]["completion_tokens"] == 8
    assert all("usage" not in event for event in found[:-2])


def test_stream_with_include_usage_sends_it_apart(house: House) -> None:
    options = {"include_usage": True}
    found = events(house.chat(stream=True, stream_options=options).body)
    assert found[-2]["choices"] == []
    assert found[-2]["usage"]["completion_tokens"] == 8
    assert found[-3]["choices"][0]["finish_reason"] == "length"


def test_completions(house: House) -> None:
    body = {"model": "smol", "prompt": "One, two, three,", "max_tokens": 4, "temperature": 0}
    answer = house.call("POST", "/v1/completions", body)
    assert answer.status == 200
    assert answer.json["object"] == "text_completion"
    assert " four" in answer.json["choices"][0]["text"]
    assert answer.json["usage"]["completion_tokens"] == 4
    streamed = events(house.call("POST", "/v1/completions", {**body, "stream": True}).body)
    text = "".join(event["choices"][0]["text"] for event in streamed[:-1])
    assert text == answer.json["choices"][0]["text"]


def test_completions_of_several_prompts(house: House) -> None:
    body = {"model": "smol", "prompt": ["One, two,", "A, B,"], "max_tokens": 3, "temperature": 0}
    answer = house.call("POST", "/v1/completions", body)
    assert [choice["index"] for choice in answer.json["choices"]] == [0, 1]
    assert answer.json["usage"]["completion_tokens"] == 6


def test_embeddings(house: House) -> None:
    body = {"model": "smol", "input": ["a cat", "a dog"]}
    answer = house.call("POST", "/v1/embeddings", body)
    assert answer.status == 200
    first, second = (item["embedding"] for item in answer.json["data"])
    assert len(first) == len(second) == 576
    assert answer.json["usage"]["prompt_tokens"] > 0
    packed = house.call("POST", "/v1/embeddings", {**body, "encoding_format": "base64"})
    assert isinstance(packed.json["data"][0]["embedding"], str)


def test_models_lists_deployments(house: House) -> None:
    listed = house.call("GET", "/v1/models").json
    assert [model["id"] for model in listed["data"]] == ["auto", "smol"]
    one = house.call("GET", "/v1/models/smol").json
    assert one["meta"]["state"] == "ready"
    assert house.call("GET", "/v1/models/nothing").status == 404


def test_auto_picks_a_deployment(house: House) -> None:
    answer = house.chat(model="auto")
    assert answer.headers["x-freehold-deployment"] == "smol"


def test_seed_n_stop_and_logprobs(house: House) -> None:
    one, two = (house.chat(temperature=1, seed=7, max_tokens=16) for _ in range(2))
    assert one.json["choices"] == two.json["choices"]
    several = house.chat(n=2, temperature=1).json
    assert [choice["index"] for choice in several["choices"]] == [0, 1]
    assert several["usage"]["completion_tokens"] == 16
    text = house.chat(max_tokens=24).json["choices"][0]["message"]["content"]
    word = text.split()[4]
    stopped = house.chat(max_tokens=24, stop=[word]).json["choices"][0]
    assert stopped["finish_reason"] == "stop"
    assert word not in stopped["message"]["content"]
    tokens = house.chat(logprobs=True, top_logprobs=2).json["choices"][0]["logprobs"]["content"]
    assert len(tokens) == 8
    assert len(tokens[0]["top_logprobs"]) == 2
    assert tokens[0]["logprob"] <= 0


def test_json_schema_is_kept_to(house: House) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "c", "schema": SCHEMA, "strict": True}}
    answer = house.chat(response_format=form, max_tokens=40)
    assert json.loads(answer.json["choices"][0]["message"]["content"])["colour"] in ("red", "blue")


def test_unknown_fields_pass_through(house: House) -> None:
    forced = house.chat(grammar='root ::= "green"')  # a field that only llama.cpp knows
    assert forced.json["choices"][0]["message"]["content"] == "green"


@pytest.mark.parametrize(
    ("body", "status", "code", "says"),
    [
        (b"{", 400, "invalid.json", "not valid JSON"),
        (b"", 400, "invalid.json", "not valid JSON"),
        (b"[]", 400, "invalid.request", "object"),
        (b"\xff\xfe", 400, "invalid.json", "not valid JSON"),
        (b'{"model": "smol"}', 400, "invalid.request", "messages"),
        (b'{"model": 1, "messages": []}', 400, "invalid.request", "model"),
        (b'{"model": "smol", "messages": []}', 400, "invalid.request", "messages"),
        (b'{"model": "smol", "messages": [{"role": "x"}]}', 400, "invalid.request", "role"),
        (b'{"model": "smol", "messages": "hi"}', 400, "invalid.request", "messages"),
        (b'{"model": "smol", "x": ' + b"[" * 100_000, 400, "invalid.json", "JSON"),
        (
            b'{"model": "smol", "messages": [{"role": "user", "content": "x"}], "temperature": 9}',
            400, "invalid.request", "temperature",
        ),
        (
            b'{"model": "smoll", "messages": [{"role": "user", "content": "x"}]}',
            404, "missing.deployment", "did you mean smol",
        ),
    ],
)  # fmt: skip
def test_bad_bodies_get_one_clear_error(
    house: House, body: bytes, status: int, code: str, says: str
) -> None:
    answer = house.call("POST", "/v1/chat/completions", body)
    assert (answer.status, answer.error["code"]) == (status, code)
    assert says in answer.error["message"]
    assert answer.error["src"] == "freehold"
    assert answer.error["id"] == answer.headers["x-freehold-request"]
    assert house.audit(id=answer.error["id"])[0]["outcome"] == "refused"


def test_a_context_that_is_too_long_is_the_engines_error(house: House) -> None:
    words = "word " * 9000
    answer = house.chat(messages=[{"role": "user", "content": words}])
    assert answer.status == 400
    assert answer.error["code"] == "context_length_exceeded"
    assert answer.error["src"] == "engine"
    streamed = house.chat(messages=[{"role": "user", "content": words}], stream=True)
    assert streamed.status == 400


def test_a_body_over_the_limit_is_refused(house: House) -> None:
    limit = 16 * 1024 * 1024
    answer = house.call("POST", "/v1/chat/completions", b" " * (limit + 1))
    assert answer.status == 413
    assert str(limit) in answer.error["message"]


def test_a_gigabyte_is_refused_before_it_is_read(house: House) -> None:
    with _connect(house) as peer:
        peer.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer "
            + house.key.encode() + b"\r\ncontent-length: 1073741824\r\n\r\n"
        )  # fmt: skip
        assert b" 413 " in peer.recv(4096).split(b"\r\n")[0]


def test_a_chunked_gigabyte_is_cut_off(house: House) -> None:
    before = _resident(house)
    with _connect(house) as peer:
        peer.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer "
            + house.key.encode() + b"\r\ntransfer-encoding: chunked\r\n\r\n"
        )  # fmt: skip
        chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
        sent = 0
        try:
            for _ in range(1024):
                peer.sendall(chunk)
                sent += 1
        except OSError:
            pass
        if sent == 1024:
            assert b" 413 " in peer.recv(4096).split(b"\r\n")[0]
    assert _resident(house) - before < 200 * 2**20
    assert house.chat().status == 200


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n"
        b"transfer-encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nhost: x\r\nx-long: " + b"a" * 2_000_000 + b"\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer \x00\x01\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: " + b"\xff" * 40 + b"\r\n\r\n",
        b"GET /%00%ff/../../etc/passwd HTTP/1.1\r\nhost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)  # fmt: skip
def test_hostile_heads_get_a_refusal_and_harm_nobody(house: House, head: bytes) -> None:
    with _connect(house) as peer:
        try:
            peer.sendall(head)
            peer.shutdown(socket.SHUT_WR)
            first = peer.recv(65536).split(b"\r\n")[0]
        except OSError:
            first = b""
    assert not first or first.split()[1][:1] == b"4"
    assert house.chat().status == 200


def test_routes_that_do_not_exist(house: House) -> None:
    answer = house.call("GET", "/nothing")
    assert (answer.status, answer.error["code"]) == (404, "missing.route")
    answer = house.call("GET", "/v1/chat/completions")
    assert (answer.status, answer.error["code"]) == (405, "invalid.method")
    assert house.call("GET", "/api/nothing").status == 404
    assert house.call("PATCH", "/api/models").status == 405


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_stops_the_generation(house: House, stream: bool) -> None:
    body = json.dumps(
        {"model": "smol", "messages": QUESTION, "max_tokens": 4000, "stream": stream,
         "temperature": 1, "ignore_eos": True}
    ).encode()  # fmt: skip
    with _connect(house) as peer:
        peer.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer "
            + house.key.encode() + f"\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
        )  # fmt: skip
        if stream:  # what is there arrives while the engine still writes
            assert b'"delta"' in peer.recv(4096)
            assert b'"delta"' in peer.recv(4096)
        eventually(lambda: _busy_slots(house), "the engine works")
        time.sleep(0.3)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    eventually(lambda: not _busy_slots(house), "the engine stopped", 5)
    record = eventually(
        lambda: [
            r
            for r in house.audit(deployment="smol", limit="20")
            if r["outcome"] == "cancelled" and r.get("stream", False) == stream
        ],
        "recorded",
    )[0]
    assert 0 < record["tokens_out"] < 3000
    assert record["tokens_in"] < 100
    assert record["status"] == 499


def test_every_request_leaves_one_record(house: House) -> None:
    key = house.make_key("developer")
    answer = house.chat(key=key, stream=True)
    found = house.audit(id=answer.headers["x-freehold-request"])
    assert len(found) == 1
    record = found[0]
    assert record["principal"] == "a-developer"
    assert record["role"] == "developer"
    assert (record["deployment"], record["model"], record["version"]) == ("smol", "smol", 1)
    assert record["digest"] == house.deployment()["digest"]
    assert (record["outcome"], record["status"], record["tokens_out"]) == ("ok", 200, 8)
    assert record["first_token_ms"] > 0
    assert record["total_ms"] >= record["first_token_ms"]
    assert "gravity" not in json.dumps(record)


def test_the_record_is_on_disk_before_the_last_byte_leaves(house: House) -> None:
    answer = house.chat(stream=True)
    name = answer.headers["x-freehold-request"].encode()
    journals = (house.home / "audit").glob("*.jsonl")
    assert any(name in journal.read_bytes() for journal in journals)


def test_usage_adds_up_by_principal_and_deployment(house: House) -> None:
    key = house.call("POST", "/api/keys", {"principal": "counted"}).json["key"]
    for _ in range(3):
        assert house.chat(key=key).status == 200
    assert house.chat(key=key, model="none").status == 404
    rows = [r for r in house.call("GET", "/api/usage").json["usage"] if r["principal"] == "counted"]
    by = {row["deployment"]: row for row in rows}
    assert (by["smol"]["requests"], by["smol"]["tokens_out"]) == (3, 24)
    assert (by[""]["requests"], by[""]["failed"]) == (1, 1)


def test_many_at_once_all_get_their_own_answer(house: House) -> None:
    def ask(number: int) -> tuple[int, str]:
        prompt = [{"role": "user", "content": f"Count from {number}"}]
        answer = house.chat(messages=prompt, max_tokens=6, stream=number % 2 == 0)
        return answer.status, answer.headers["x-freehold-request"]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(48)))
    assert {status for status, _ in answers} == {200}
    assert len({name for _, name in answers}) == 48


def _connect(house: House) -> socket.socket:
    parts = urllib.parse.urlsplit(house.url)
    return socket.create_connection((parts.hostname, parts.port), timeout=30)


def _busy_slots(house: House) -> bool:
    return any(replica["inflight"] for replica in house.replicas())


def _resident(house: House) -> int:
    return sum(g["resident"] for g in house.call("GET", "/api/status").json["gateways"])
