"""Upstreams that cost next to nothing: a whole answer from nginx, streams of timed frames.

    python -m bench.mock PORT FRAMES_PER_SECOND

The stream mock stamps every frame with its number and the monotonic time it was sent at, so a
client on the same machine knows what was lost, reordered or late.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import uvloop
from httptools import HttpRequestParser

from bench.stage import WORK, answers, free_port, other_cores
from tests.house import eventually

WHOLE = {
    "id": "x", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop",
                 "message": {"role": "assistant", "content": "Hello there, how can I help you?"}}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 9, "total_tokens": 19},
}  # fmt: skip
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
LAST = (
    b'data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    b'[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[],'
    b'"usage":{"prompt_tokens":10,"completion_tokens":9,"total_tokens":19}}\n\ndata: [DONE]\n\n'
)


@contextmanager
def whole_answers() -> Iterator[str]:
    """Run nginx; every request gets the same completion."""
    port, folder = free_port(), Path(tempfile.mkdtemp(dir=WORK))
    config = folder / "nginx.conf"
    config.write_text(
        f"worker_processes 1; daemon off; pid {folder}/pid; error_log /dev/null;\n"
        "events { worker_connections 1024; }\n"
        "http { access_log off; keepalive_requests 10000000; client_body_temp_path "
        f"{folder}; server {{ listen 127.0.0.1:{port}; location / {{ default_type "
        f"application/json; return 200 '{json.dumps(WHOLE)}'; }} }} }}\n"
    )
    child = subprocess.Popen([*other_cores(), "nginx", "-c", str(config), "-p", str(folder)])
    try:
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: answers(url), "the mock")
        yield url
    finally:
        child.terminate()
        child.wait()


@contextmanager
def streams(frames_per_second: int) -> Iterator[str]:
    """Run the mock that streams; the number of frames is the request's ``max_tokens``."""
    port = free_port()
    command = [*other_cores(), sys.executable, "-m", "bench.mock", str(port)]
    child = subprocess.Popen([*command, str(frames_per_second)])
    try:
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: answers(url), "the mock of streams")
        yield url
    finally:
        child.kill()
        child.wait()


def frame(number: int) -> bytes:
    """Return one event, stamped with its number and the time in nanoseconds."""
    return (
        b'data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":'
        b'[{"index":0,"delta":{"content":"%d %d "},"finish_reason":null}]}\n\n'
        % (number, time.monotonic_ns())
    )


class _Stream(asyncio.Protocol):
    """One connection: the request in, its frames out at every tick."""

    def __init__(self, open_streams: set["_Stream"]) -> None:
        self._open = open_streams
        self._parser = HttpRequestParser(self)
        self._body = b""
        self._next = 0
        self._frames = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, _error: Exception | None) -> None:
        self._open.discard(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if not self._body:  # somebody asks whether we are there
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            self._transport.close()
            return
        self._frames = json.loads(self._body).get("max_tokens", 100)
        self._transport.write(HEAD)
        self.tick()
        self._open.add(self)

    def tick(self) -> None:
        """Send the next frame, or the end."""
        if self._next < self._frames:
            self._chunk(frame(self._next))
            self._next += 1
            return
        self._open.discard(self)
        self._chunk(LAST)
        self._transport.write(b"0\r\n\r\n")
        self._transport.close()

    def _chunk(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))


async def _serve(port: int, frames_per_second: int) -> None:
    open_streams: set[_Stream] = set()
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: _Stream(open_streams), "127.0.0.1", port, backlog=1024)
    phases = 20  # streams tick at different moments, as real ones do
    step, tick = 1 / frames_per_second / phases, 0
    at = loop.time()
    while True:
        at += step
        await asyncio.sleep(max(0.0, at - loop.time()))
        tick += 1
        for stream in list(open_streams):
            if id(stream) // 64 % phases == tick % phases:
                stream.tick()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
