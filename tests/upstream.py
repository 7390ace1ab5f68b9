"""A cheap OpenAI-compatible endpoint in its own process: ``python -m tests.upstream PORT``.

An answer has as many tokens as the last digits of its number say, at most ``max_tokens``; a prompt
has one for each five bytes of the body. Some answers take a few milliseconds, so that they overlap.
"""

import asyncio
import itertools
import json
import random
import sys


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while head := await _head(reader):
        length = int(head.get("content-length", "0"))
        body = await reader.readexactly(length)
        asked = json.loads(body)
        number = next(NUMBERS)
        await asyncio.sleep(float(asked.get("seed") or random.randint(0, 20)) / 1000)
        usage = {"prompt_tokens": len(body) // 5, "completion_tokens": _tokens(number, asked)}
        usage["total_tokens"] = sum(usage.values())
        writer.write(_streamed(usage) if asked.get("stream") else _whole(usage))
        await writer.drain()
    writer.close()


async def _head(reader: asyncio.StreamReader) -> dict[str, str]:
    try:
        text = (await reader.readuntil(b"\r\n\r\n")).decode()
    except (asyncio.IncompleteReadError, ConnectionError):
        return {}
    pairs = (line.partition(":") for line in text.split("\r\n")[1:] if line)
    return {name.lower(): value.strip() for name, _, value in pairs} | {"": "read"}


def _tokens(number: int, asked: dict[str, object]) -> int:
    return 1 + number * 7919 % int(str(asked.get("max_tokens") or 16))


def _whole(usage: dict[str, int]) -> bytes:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "x"}}
    body = json.dumps({"id": "x", "choices": [choice], "usage": usage}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


def _streamed(usage: dict[str, int]) -> bytes:
    events = [
        {"choices": [{"index": 0, "finish_reason": None, "delta": {"content": "x"}}]},
        {"choices": [{"index": 0, "finish_reason": "stop", "delta": {}}]},
        {"choices": [], "usage": usage},
    ]
    body = b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events)
    body += b"data: [DONE]\n\n"
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    return head + b"content-length: %d\r\n\r\n%b" % (len(body), body)


async def main(port: int) -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", port, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


NUMBERS = itertools.count(1)
if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
