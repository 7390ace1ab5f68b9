"""An endpoint that speaks chat completions and misbehaves on demand, on loopback.

The fault is in the URL: ``{server.base('stall')}`` is an endpoint that stalls, ``base('well')`` one
that is well. So one server stands for any number of replicas, and any gateway can be put before it.
"""

import json
import select
import socket
import struct
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import Any

FAULTS = {
    "refused": "connection refused",
    "reset": "reset before headers",
    "late": "headers too late",
    "kind": "wrong content type",
    "429-after": "429 with Retry-After",
    "429": "429 without",
    "500": "500",
    "503": "503",
    "auth": "upstream auth failure",
    "silent": "no first token in time",
    "stall": "stream stalls half way",
    "cut": "stream cut half way",
    "frame": "malformed SSE frame",
    "body": "malformed JSON body",
    "inside": "HTTP 200 with an error inside",
    "empty": "an empty completion",
}
"""Name in the URL, and what happens. Where it says stream, a document does likewise."""

WORDS = ["The", " sky", " is", " blue:", " air", " scatters", " short", " waves", " most", "."]
TEXT = "".join(WORDS)
HEAD = {"created": 1, "model": "m", "system_fingerprint": "f"}
PATIENCE = 60.0


class Faulty:
    """The server; use it as a context. ``seen`` counts requests by fault, ``bodies`` keeps them.

    ``pace`` is the seconds between two tokens; ``active`` the connections that are open.
    """

    def __init__(self, pace: float = 0.0) -> None:
        self.seen: Counter[str] = Counter()
        self.bodies: list[tuple[str, dict[str, Any]]] = []
        self.pace = pace
        self.active = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._nobody = free.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> "Faulty":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        deadline = time.monotonic() + 5
        while self.active and time.monotonic() < deadline:
            time.sleep(0.01)

    def base(self, fault: str, tag: str = "") -> str:
        """Return the base URL of an endpoint; other tags are other endpoints."""
        port = self._nobody if fault == "refused" else self._listener.getsockname()[1]
        return f"http://127.0.0.1:{port}/{fault}{'.' if tag else ''}{tag}/v1"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.active += 1
            threading.Thread(target=self._attend, args=(connection,), daemon=True).start()

    def _attend(self, connection: socket.socket) -> None:
        with connection, suppress(OSError, ValueError):
            path, body = _request(connection)
            fault = path.split("/")[1].partition(".")[0]
            if body is not None:
                with self._lock:
                    self.seen[path.split("/")[1]] += 1
                    self.bodies.append((path, body))
                _Answer(self, connection, path, body).give(fault)
        with self._lock:
            self.active -= 1

    def wait(self, connection: socket.socket, seconds: float = PATIENCE) -> None:
        """Do nothing until the client hangs up, the server closes, or the time is over."""
        deadline = time.monotonic() + seconds
        while not self._closing.is_set() and time.monotonic() < deadline:
            if select.select([connection], [], [], 0.02)[0] and not connection.recv(1):
                raise ConnectionError("the client hung up")


class _Answer:
    """One answer, well or not."""

    def __init__(
        self, server: Faulty, connection: socket.socket, path: str, body: dict[str, Any]
    ) -> None:
        self.server = server
        self.place = path.split("/")[1]
        self.connection = connection
        self.stream = bool(body.get("stream"))
        self.chat = path.endswith("/chat/completions")
        self.words = _words(body, self.chat)
        self.limit = body.get("max_tokens") or 1 << 30
        self.counts = bool((body.get("stream_options") or {}).get("include_usage"))

    def give(self, fault: str) -> None:
        """Answer as the fault has it."""
        name = "fault_" + fault.replace("-", "_")
        getattr(self, name, self.well)()

    def well(self, end: int | None = None) -> None:
        """Give the whole answer; or, when it streams, only so many words and no end."""
        words = self.words[: self.limit]
        if not self.stream:
            self._send_json(self._document("".join(words), len(words)))
            return
        self._begin()
        for word in words[:end]:
            if self.server.pace:
                self.server.wait(self.connection, self.server.pace)
            self._event(self._part(word))
        if end is None:
            self._finish("length" if len(words) == self.limit else "stop", len(words))

    def fault_reset(self) -> None:
        self._reset()

    def fault_late(self) -> None:
        self.server.wait(self.connection)

    def fault_kind(self) -> None:
        page = b"<html><body>Welcome to the proxy of this network.</body></html>"
        self._send(200, page, "text/html")

    def fault_429_after(self) -> None:
        self._complain(429, "slow down", "retry-after: 1\r\n")

    def fault_429(self) -> None:
        self._complain(429, "slow down")

    def fault_500(self) -> None:
        self._complain(500, "an internal error")

    def fault_503(self) -> None:
        self._complain(503, "overloaded")

    def fault_auth(self) -> None:
        self._complain(401, "Incorrect API key provided: sk-very-secret")

    def fault_once(self) -> None:
        """Too much to do the first time, well from then on."""
        if self.server.seen[self.place] == 1:
            self._complain(429, "slow down", "retry-after: 0.1\r\n")
        else:
            self.well()

    def fault_refuse(self) -> None:
        self._complain(400, "the client's own mistake")

    def fault_silent(self) -> None:
        if self.stream:
            self._begin()
        else:
            self._send_head(200, "application/json", 1000)
        self.server.wait(self.connection)

    def fault_stall(self) -> None:
        self._half()
        self.server.wait(self.connection)

    def fault_cut(self) -> None:
        self._half()

    def fault_frame(self) -> None:
        if not self.stream:
            self.fault_body()
            return
        self.well(end=3)
        self._raw(b'dat: {"choices": [{"index": 0, "del\n\n')
        self._event(self._part(self.words[4]))
        self._finish("stop", 4)

    def fault_body(self) -> None:
        if not self.stream:
            self._send(200, json.dumps(self._document(TEXT, 9)).encode()[:-20], "application/json")
            return
        self.well(end=3)
        self._raw(b'data: {"choices": [{"index": 0, "delta": {"content": " bl\n\n')
        self._event(self._part(self.words[4]))
        self._finish("stop", 4)

    def fault_inside(self) -> None:
        error = {"error": {"message": "the model crashed", "type": "server_error", "code": None}}
        if self.stream:
            self._begin()
            self._event(error)
            self._raw(b"data: [DONE]\n\n")
        else:
            self._send_json(error)

    def fault_empty(self) -> None:
        if self.stream:
            self._begin()
            self._finish("stop", 0)
        else:
            self._send_json(self._document("", 0))

    def fault_unusual(self) -> None:
        """Half a stream, then the error inside it."""
        self.well(end=3)
        self._event({"error": {"message": "the model crashed"}})

    def fault_overrun(self) -> None:
        """Half a stream, then too much to do."""
        self.well(end=3)
        self._event({"error": {"message": "too many at once", "code": 429}})

    def fault_unfinished(self) -> None:
        """All the words, all the manners, but no finish reason."""
        if self.stream:
            self.well(end=len(self.words))
            self._raw(b"data: [DONE]\n\n")
        else:
            document = self._document(TEXT, 9)
            document["choices"][0]["finish_reason"] = None
            self._send_json(document)

    def fault_nousage(self) -> None:
        """Cut after the finish: nothing is missing but the counts."""
        self.well(end=len(self.words))
        self._event(self._part("", "stop"))
        self._reset()

    def fault_other(self) -> None:
        """Well, but it says something else."""
        self.words = ["Because", " of", " Rayleigh", "."]
        self.well()

    def fault_short(self) -> None:
        """Well, but it stops after a word."""
        self.words = self.words[:1]
        self.well()

    def _half(self) -> None:
        if self.stream:
            self.well(end=len(self.words) // 2)
            return
        body = json.dumps(self._document(TEXT, 9)).encode()
        self._send_head(200, "application/json", len(body))
        self._raw(body[: len(body) // 2])

    def _part(self, text: str, reason: str | None = None) -> dict[str, Any]:
        what = {"delta": {"content": text} if text else {}} if self.chat else {"text": text}
        choice = {"index": 0, **what, "finish_reason": reason}
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return {"id": f"c-{id(self)}", "object": kind, **HEAD, "choices": [choice]}

    def _document(self, text: str, tokens: int) -> dict[str, Any]:
        what = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        kind = "chat.completion" if self.chat else "text_completion"
        choice = {"index": 0, **what, "finish_reason": "stop"}
        usage = _usage(tokens)
        return {"id": f"c-{id(self)}", "object": kind, **HEAD, "choices": [choice], "usage": usage}

    def _begin(self) -> None:
        self._raw(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
        )
        if self.chat:
            first = self._part("")
            first["choices"][0]["delta"] = {"role": "assistant", "content": ""}
            self._event(first)

    def _finish(self, reason: str, tokens: int) -> None:
        self._event(self._part("", reason))
        if self.counts:
            self._event({**self._part(""), "choices": [], "usage": _usage(tokens)})
        self._raw(b"data: [DONE]\n\n")

    def _event(self, event: dict[str, Any]) -> None:
        self._raw(b"data: " + json.dumps(event).encode() + b"\n\n")

    def _complain(self, status: int, text: str, headers: str = "") -> None:
        body = json.dumps({"error": {"message": text, "type": "engine", "code": None}}).encode()
        self._send(status, body, "application/json", headers)

    def _send_json(self, document: dict[str, Any]) -> None:
        self._send(200, json.dumps(document).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str, headers: str = "") -> None:
        self._send_head(status, kind, len(body), headers)
        self._raw(body)

    def _send_head(self, status: int, kind: str, length: int, headers: str = "") -> None:
        head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n"
        self._raw(f"{head}connection: close\r\n{headers}\r\n".encode())

    def _raw(self, data: bytes) -> None:
        self.connection.sendall(data)

    def _reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


def verdict(status: int, body: bytes, *, stream: bool, text: str = TEXT) -> str:
    """Judge what a client was given: ``answer`` (whole and right), ``error`` (and plainly one), or
    ``lie``: something that reads as a success and is none."""
    if status != 200:
        return "error" if status >= 400 else "lie"
    if not stream:
        try:
            choice = json.loads(body)["choices"][0]
        except (ValueError, LookupError, TypeError):
            return "lie"
        whole = choice["message"]["content"] == text and choice["finish_reason"]
        return "answer" if whole else "lie"
    found, finish, done = "", None, False
    for line in body.split(b"\n"):
        data = line.removeprefix(b"data: ").strip()
        if not line.startswith(b"data:") or not data:
            continue
        if data == b"[DONE]":
            done = True
            continue
        try:
            event = json.loads(data)
        except ValueError:
            return "lie"
        if event.get("error"):
            return "error"
        for choice in event.get("choices") or ():
            found += (choice.get("delta") or {}).get("content") or ""
            finish = choice.get("finish_reason") or finish
    if finish is None and not done:
        return "cut"  # no SDK takes it for a whole answer that looks at the end
    return "answer" if (found, finish, done) == (text, "stop", True) else "lie"


def _words(body: dict[str, Any], chat: bool) -> list[str]:
    """Return what is left to say when the assistant has begun already."""
    said = ""
    if chat and body.get("messages") and body["messages"][-1].get("role") == "assistant":
        said = body["messages"][-1]["content"]
    elif not chat:
        said = str(body.get("prompt", "")).partition("?")[2]
    if not said or not TEXT.startswith(said):
        return list(WORDS)
    count = 0
    while "".join(WORDS[:count]) != said and count < len(WORDS):
        count += 1
    return WORDS[count:]


def _usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 10, "completion_tokens": tokens, "total_tokens": 10 + tokens}


def _request(connection: socket.socket) -> tuple[str, dict[str, Any] | None]:
    """Read one request; the body is None where it is none of ours."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionError("no request")
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
    if headers.get("expect"):
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    length = int(headers.get("content-length") or 0)
    chunked = "chunked" in headers.get("transfer-encoding", "")
    while len(body) < length or (chunked and not body.endswith(b"0\r\n\r\n")):
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionError("half a request")
        body += piece
    if chunked:
        body = _dechunk(body)
    return lines[0].split(" ")[1], json.loads(body) if body else None


def _dechunk(data: bytes) -> bytes:
    whole = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        whole, data = whole + data[:length], data[length + 2 :]
        if not length:
            break
    return whole
