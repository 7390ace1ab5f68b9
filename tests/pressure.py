"""Many clients at once, gateways killed meanwhile, and what must hold of budgets all the time.

An oracle from outside: it knows what every client asked, when, and what came of it; and at the end,
from the record, what was charged in all.
"""

import bisect
import http.client
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.house import House

ROOT = Path(__file__).parents[1]
GRACE = 0.05


@dataclass
class Shot:
    """One request: when, how much it wanted at most, what came (status 0: the line went dead)."""

    begun: float
    want: int
    ended: float = float("inf")
    status: int = 0
    used: int = 0
    code: str = ""
    details: dict[str, Any] = field(default_factory=dict)


@contextmanager
def upstream() -> Iterator[str]:
    """Run the cheap endpoint; yield its URL."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.upstream", "0"], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert child.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(child.stdout.readline())}/v1"
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


class Pressure:
    """``clients`` threads that ask as fast as they can, until told to stop."""

    def __init__(self, house: House, key: str, model: str, clients: int) -> None:
        self._url = urlsplit(house.url)
        self._key = key
        self._model = model
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.shots: list[Shot] = []
        self._threads = [
            threading.Thread(target=self._run, args=(number,), daemon=True)
            for number in range(clients)
        ]

    def __enter__(self) -> "Pressure":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a client hangs"

    def _run(self, number: int) -> None:
        chance = random.Random(number)
        line = self._connect()
        while not self._stop.is_set():
            body = self._body(chance)
            shot = Shot(time.monotonic(), want(body))
            with self._lock:
                self.shots.append(shot)
            try:
                line.request("POST", "/v1/chat/completions", json.dumps(body), self._headers())
                answer = line.getresponse()
                data = answer.read()
                read(shot, answer.status, data, stream=body["stream"])
            except (OSError, http.client.HTTPException, ValueError):
                line.close()
                line = self._connect()
                time.sleep(0.02)
            shot.ended = time.monotonic()
            if shot.status in (429, 503):
                time.sleep(chance.random() * 0.02)
        line.close()

    def _body(self, chance: random.Random) -> dict[str, Any]:
        text = "x" * chance.randint(1, 60)
        return {
            "model": self._model, "messages": [{"role": "user", "content": text}],
            "max_tokens": chance.randint(1, 200), "stream": chance.random() < 0.3,
        }  # fmt: skip

    def _connect(self) -> http.client.HTTPConnection:
        assert self._url.hostname is not None
        return http.client.HTTPConnection(self._url.hostname, self._url.port, timeout=30)

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._key}", "content-type": "application/json"}


def want(body: dict[str, Any]) -> int:
    """Return the tokens that a request may use at most, as the gateway must reckon."""
    return len(json.dumps(body)) // 4 * 4 + 3 + 64 + int(body["max_tokens"])


def read(shot: Shot, status: int, data: bytes, *, stream: bool) -> None:
    """Write what came into the shot; raises where an answer is cut."""
    if status != 200:
        error = json.loads(data)["error"]
        shot.code, shot.details = error["code"], error.get("details") or {}
    elif stream:
        events = [line[6:] for line in data.split(b"\n\n") if line.startswith(b"data: ")]
        if events[-1] != b"[DONE]":
            raise ValueError("cut")
        shot.used = json.loads(events[-2])["usage"]["total_tokens"]
    else:
        shot.used = json.loads(data)["usage"]["total_tokens"]
    shot.status = status


def kill_some(house: House, seconds: float, pause: tuple[float, float], seed: int) -> int:
    """Kill gateways at random for a while; return how many."""
    chance, killed = random.Random(seed), 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(chance.uniform(*pause))
        with suppress(ValueError, OSError, KeyError, IndexError):
            os.kill(chance.choice(house.gateways()), signal.SIGKILL)
            killed += 1
    return killed


def false_denials(shots: list[Shot], amount: int, charged: int) -> list[Shot]:
    """Return refusals that no accounting can justify.

    When a refusal came, at most this was spent or reserved: answers that had ended before, at what
    they used; all that ran meanwhile, at what they may use; and, of requests whose line went dead,
    no more in all than the record has beyond the answers.
    """
    counted = [shot for shot in shots if shot.status != 429]
    begun = Sums((shot.begun, shot.want) for shot in counted)
    over = Sums((_over(shot), shot.want) for shot in counted)
    used = Sums((shot.ended, shot.used) for shot in counted)
    dead = charged - sum(shot.used for shot in counted)
    return [
        shot
        for shot in shots
        if shot.status == 429
        and dead + used.before(shot.begun) + begun.before(shot.ended) - over.before(shot.begun)
        + shot.want <= amount
    ]  # fmt: skip


def _over(shot: Shot) -> float:
    # The kernel closes a killed process's connections and locks one after the other.
    return shot.ended + (GRACE if shot.status == 0 else 0.0)


class Sums:
    """Running sums over time."""

    def __init__(self, points: Iterable[tuple[float, int]]) -> None:
        found = sorted(points)
        self._at = [at for at, _ in found]
        self._sums = [0, *itertools.accumulate(value for _, value in found)]

    def before(self, at: float) -> int:
        """Return the sum of all values up to a moment."""
        return self._sums[bisect.bisect_right(self._at, at)]
