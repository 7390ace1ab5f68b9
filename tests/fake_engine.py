"""An endpoint that answers at once, streams as long as it is told to, and counts who is there."""

import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WHOLE = {
    "id": "x", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop",
                 "message": {"role": "assistant", "content": "Hello"}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}  # fmt: skip


class FakeEngine:
    """``max_tokens`` pieces, one every ``seed`` milliseconds; ``stop`` may name a longer piece."""

    def __init__(self) -> None:
        self.running = 0
        self.url = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = json.loads(request.rfile.read(int(request.headers["content-length"])))
        self.running += 1
        try:
            if asked.get("stream"):
                self._stream(request, asked)
            else:
                time.sleep((asked.get("seed") or 0) / 1000)
                _whole(request, asked)
        except OSError:
            request.close_connection = True
        finally:
            self.running -= 1

    def _stream(self, request: BaseHTTPRequestHandler, asked: dict[str, object]) -> None:
        request.send_response(200)
        request.send_header("content-type", "text/event-stream")
        request.send_header("connection", "close")
        request.end_headers()
        request.close_connection = True
        piece = "x" * int(str(asked.get("stop") or 1))
        for number in range(int(str(asked["max_tokens"]))):
            time.sleep(int(str(asked.get("seed") or 0)) / 1000)
            last = number == int(str(asked["max_tokens"])) - 1
            choice = {
                "index": 0, "delta": {"content": piece}, "finish_reason": "stop" if last else None,
            }  # fmt: skip
            event = {"id": "x", "object": "chat.completion.chunk", "choices": [choice]}
            request.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        request.wfile.write(b"data: [DONE]\n\n")


def _document(path: str, asked: dict[str, Any]) -> dict[str, Any]:
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    if path.endswith("/embeddings"):
        texts = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
        count = 1 if texts and isinstance(texts[0], int) else len(texts)
        data = [
            {"object": "embedding", "index": number, "embedding": [1.0, 0.5, number]}
            for number in range(count)
        ]
        return {"object": "list", "model": "m", "data": data, "usage": usage}
    if path.endswith("/input_tokens"):
        return {"input_tokens": 3}
    if path.endswith("/chat/completions"):
        return WHOLE
    prompts = asked.get("prompt")
    count = len(prompts) if isinstance(prompts, list) and isinstance(prompts[0], str) else 1
    choices = [
        {"index": number, "text": "Hello", "finish_reason": "stop"}
        for number in range(count * int(asked.get("n") or 1))
    ]
    return {**WHOLE, "object": "text_completion", "choices": choices}


@contextmanager
def fake_engine(context: ssl.SSLContext | None = None) -> Iterator[FakeEngine]:
    """Serve on loopback, over TLS with a ``context``."""
    engine = FakeEngine()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            engine.answer(self)

        def log_message(self, *arguments: object) -> None:
            return

    class Quiet(ThreadingHTTPServer):
        request_queue_size = 128

        def handle_error(self, *arguments: object) -> None:
            """Clients that come without a certificate are what some tests are about."""

    server = Quiet(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    engine.url = f"{'https' if context else 'http'}://localhost:{server.server_address[1]}/v1"
    try:
        yield engine
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _whole(request: BaseHTTPRequestHandler, asked: dict[str, Any]) -> None:
    body = json.dumps(_document(request.path, asked)).encode()
    request.send_response(200)
    request.send_header("content-type", "application/json")
    request.send_header("content-length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)
