"""The practical ceiling of a Python proxy: granian and pyreqwest pass everything on, no features.

python -m bench.ceiling PORT UPSTREAM
"""

import sys
from typing import Any

import uvloop
from granian.constants import Interfaces
from granian.server.embed import Server
from pyreqwest.client import Client, ClientBuilder

JSON = [("content-type", "application/json")]


async def serve(port: int, upstream: str) -> None:
    """Serve until killed."""
    client: Client = ClientBuilder().no_proxy().build()

    async def app(scope: Any, protocol: Any) -> None:
        body = await protocol()
        request = client.post(upstream + scope.path).headers(JSON).body_bytes(body)
        if b'"stream":true' not in body:
            response = await request.build().send()
            protocol.response_bytes(200, JSON, (await response.bytes()).to_bytes())
            return
        built = request.streamed_read_buffer_limit(0).build_streamed()
        async with built as response:
            out = protocol.response_stream(200, [("content-type", "text/event-stream")])
            while (chunk := await response.body_reader.read_chunk()) is not None:
                await out.send_bytes(chunk.to_bytes())

    await Server(app, address="127.0.0.1", port=port, interface=Interfaces.RSGI).serve()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), sys.argv[2]))
