"""Small HTTP servers for tests: the faults of the real world, on loopback."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Handle = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def serving(handle: Handle) -> Iterator[str]:
    """Serve with ``handle`` for every method; yield the base URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            handle(self)

        do_HEAD = do_POST = do_PATCH = do_PUT = do_GET  # noqa: N815 - the standard library's names

        def log_message(self, *arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def reply(
    request: BaseHTTPRequestHandler,
    status: int,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    cut: int | None = None,
) -> None:
    """Answer; with ``cut`` only so many bytes of the body, and then hang up."""
    request.send_response(status)
    for name, value in {"content-length": str(len(body)), **(headers or {})}.items():
        request.send_header(name, value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body if cut is None else body[:cut])
        request.wfile.flush()
    if cut is not None:
        request.close_connection = True
        request.connection.close()


def ranged(request: BaseHTTPRequestHandler, data: bytes, cut: int | None = None) -> None:
    """Answer with a file, or the part of it that the client asks for."""
    asked = request.headers.get("range")
    if asked is None:
        reply(request, 200, data, {"accept-ranges": "bytes"}, cut)
        return
    first, _, last = asked.removeprefix("bytes=").partition("-")
    start, end = int(first), min(len(data), int(last) + 1) if last else len(data)
    headers = {"content-range": f"bytes {start}-{end - 1}/{len(data)}"}
    reply(request, 206, data[start:end], headers, cut)
