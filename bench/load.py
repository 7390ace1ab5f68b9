"""Load: closed loops of whole answers by wrk, many streams at once by a client of ours.

python -m bench.load URL STREAMS FRAMES HEADERS_AS_JSON
"""

import asyncio
import json
import re
import subprocess
import sys
import time
from typing import cast
from urllib.parse import urlsplit

import uvloop

from bench.stage import WORK, other_cores

PATIENCE = 60.0


def closed_loop(
    url: str, headers: dict[str, str], connections: int, seconds: int = 6
) -> dict[str, float]:
    """Return requests a second and latency percentiles in ms; refuses to report bad answers."""
    script = WORK / "post.lua"
    named = "".join(f'wrk.headers["{name}"]="{value}"\n' for name, value in headers.items())
    script.write_text(
        'wrk.method="POST"; wrk.headers["content-type"]="application/json"\n' + named +
        'wrk.body=\'{"model":"m","max_tokens":20,"messages":[{"role":"user","content":"hi"}]}\'\n'
        'done=function(s,l,r) io.write(string.format("P50 %f P99 %f BAD %d\\n",'
        "l:percentile(50)/1000,l:percentile(99)/1000,"
        "s.errors.status+s.errors.connect+s.errors.read+s.errors.timeout)) end\n"
    )  # fmt: skip
    ran = subprocess.run(
        [*other_cores(), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script),
         f"{url}/v1/chat/completions"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = re.search(r"P50 ([\d.]+) P99 ([\d.]+) BAD (\d+)", ran.stdout)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", ran.stdout)
    assert found, ran.stdout
    assert rate, ran.stdout
    return {
        "rps": float(rate[1]),
        "p50_ms": float(found[1]),
        "p99_ms": float(found[2]),
        "bad": float(found[3]),
    }


def many_streams(url: str, headers: dict[str, str], streams: int, frames: int) -> dict[str, float]:
    """Hold so many streams open at once; return what was lost and how late frames came, in ms."""
    ran = subprocess.run(
        [*other_cores(), sys.executable, "-m", "bench.load", url, str(streams), str(frames),
         json.dumps(headers)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, float] = json.loads(ran.stdout)
    return found


class _Reader(asyncio.Protocol):
    """One stream: counts its frames, notes how old each is when it comes."""

    def __init__(self, request: bytes, frames: int) -> None:
        self._request = request
        self._rest = b""
        self._frames = frames
        self._expected = 0
        self.wrong = 0
        self.ages: list[int] = []
        self.first: int | None = None
        self.whole = False
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.begun = time.monotonic_ns()
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        *events, self._rest = (self._rest + data).split(b"\n\n")
        for event in events:
            found = re.search(rb'"content":\s*"(\d+) (\d+) "', event)
            if found:
                self.wrong += int(found[1]) != self._expected
                self._expected = int(found[1]) + 1
                age = now - int(found[2])
                if self.first is None:
                    self.first = now - self.begun
                else:
                    self.ages.append(age)
            if b"data: [DONE]" in event:
                self.whole = self._expected == self._frames
                self._transport.close()

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def _hold(url: str, streams: int, frames: int, headers: dict[str, str]) -> dict[str, float]:
    place = urlsplit(url)
    body = json.dumps(
        {"model": "m", "stream": True, "max_tokens": frames,
         "messages": [{"role": "user", "content": "hi"}]}, separators=(",", ":"),
    )  # fmt: skip
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {place.netloc}\r\n{head}"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}"
    ).encode()
    loop = asyncio.get_running_loop()
    readers: list[_Reader] = []
    for _ in range(streams):
        _, reader = await loop.create_connection(
            lambda: _Reader(request, frames), place.hostname, place.port
        )
        readers.append(reader)
        await asyncio.sleep(0.004)
    await asyncio.wait([reader.done for reader in readers], timeout=PATIENCE)
    ages = sorted(age for reader in readers for age in reader.ages)
    firsts = sorted(reader.first for reader in readers if reader.first is not None)
    return {
        "whole": sum(reader.whole for reader in readers),
        "reordered": sum(reader.wrong for reader in readers),
        "frame_p50_ms": _at(ages, 0.5),
        "frame_p99_ms": _at(ages, 0.99),
        "first_p50_ms": _at(firsts, 0.5),
        "first_p99_ms": _at(firsts, 0.99),
    }


def _at(ordered: list[int], share: float) -> float:
    return round(ordered[int(share * (len(ordered) - 1))] / 1e6, 3) if ordered else -1.0


if __name__ == "__main__":
    where, many, long, said = sys.argv[1:5]
    print(json.dumps(uvloop.run(_hold(where, int(many), int(long), json.loads(said)))))
