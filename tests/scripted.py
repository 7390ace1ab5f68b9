"""An endpoint that speaks chat completions and nothing else, and says what it is told to."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.servers import reply, serving


@dataclass
class Script:
    """What the endpoint answers next, and what it was asked last.

    ``events`` are those of a chat stream; a request that does not stream gets them as one document.
    An event ``{"cut": true}`` breaks the connection off there, ``{"pause": true}`` lets what is
    before arrive first. ``status`` and ``body`` refuse.
    """

    url: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    status: int = 200
    body: dict[str, Any] | None = None
    asked: dict[str, Any] | None = None
    path: str = ""


@contextmanager
def scripted() -> Iterator[Script]:
    """Serve a script; it may be changed between requests."""
    script = Script()

    def handle(request: BaseHTTPRequestHandler) -> None:
        length = int(request.headers.get("content-length") or 0)
        script.asked = json.loads(request.rfile.read(length) or b"null")
        script.path = request.path
        if script.body is not None:
            reply(request, script.status, json.dumps(script.body).encode())
        elif request.path != "/v1/chat/completions":
            reply(request, 404, b'{"error": {"message": "no such route"}}')
        elif script.asked["stream"]:
            _stream(request, script.events)
        else:
            reply(request, 200, json.dumps(whole(script.events)).encode())

    with serving(handle) as url:
        script.url = f"{url}/v1"
        yield script


def _stream(request: BaseHTTPRequestHandler, events: list[dict[str, Any]]) -> None:
    request.send_response(200)
    request.send_header("content-type", "text/event-stream")
    request.send_header("connection", "close")
    request.send_header("transfer-encoding", "chunked")
    request.end_headers()
    for event in events:
        if "pause" in event:
            time.sleep(0.1)
        elif "cut" in event:
            request.connection.shutdown(socket.SHUT_RDWR)
            return
        else:
            _chunk(request, b"data: %b\n\n" % json.dumps(event).encode())
    _chunk(request, b"data: [DONE]\n\n")
    _chunk(request, b"")
    request.close_connection = True


def _chunk(request: BaseHTTPRequestHandler, data: bytes) -> None:
    request.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
    request.wfile.flush()


def whole(events: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the events of a chat stream as the document that says the same."""
    message: dict[str, Any] = {"role": "assistant", "content": None}
    choice: dict[str, Any] = {"index": 0, "message": message}
    document: dict[str, Any] = {"object": "chat.completion", "choices": [choice]}
    calls: dict[int, dict[str, Any]] = {}
    tokens: list[Any] = []
    for event in events:
        document.update({k: event[k] for k in ("id", "created", "model", "usage") if k in event})
        for part in event.get("choices", ()):
            for name, value in part["delta"].items():
                if name in ("content", "reasoning_content", "refusal") and value:
                    message[name] = (message.get(name) or "") + value
            for call in part["delta"].get("tool_calls", ()):
                made = calls.setdefault(call["index"], {"type": "function", "function": {}})
                made.update({k: call[k] for k in ("id",) if k in call})
                for key, text in call.get("function", {}).items():
                    made["function"][key] = made["function"].get(key, "") + text
            tokens += (part.get("logprobs") or {}).get("content", [])
            choice.update({k: part[k] for k in ("finish_reason", "stop_reason") if part.get(k)})
    if calls:
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
    if tokens:
        choice["logprobs"] = {"content": tokens}
    return document
