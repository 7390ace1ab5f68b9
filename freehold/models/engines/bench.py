"""An engine started for a measurement, and what is measured: how it answers, and how fast.

The numbers are the engine's own: time per token as it counts it, network and client left out.
Requests do not reuse what earlier ones left in its cache.
"""

import math
import random
import secrets
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
from pyreqwest.client import SyncClient, SyncClientBuilder
from pyreqwest.exceptions import PyreqwestError

from freehold.errors import EngineLost, Unavailable
from freehold.models.engines.agree import Distribution
from freehold.runtime import process
from freehold.runtime.builds import Speed
from freehold.runtime.engine import Engine, Launch
from freehold.settings import environment

PATIENCE = 120.0
ANSWER = 300.0
CLIENTS = 8
READ, WRITTEN, EACH = 192, 24, 8
"""Tokens: of a prompt, of an answer, of the answer of each of eight clients."""
LISTED = 10
PROMPTS = (
    "The capital of France is",
    "def fibonacci(n):\n    ",
    "Water boils at a temperature of",
    "Der schnelle braune Fuchs springt",
    "1, 1, 2, 3, 5, 8,",
    "To make a cup of tea, first",
    "SELECT name FROM users WHERE",
    "The opposite of hot is",
    "El sol sale por el",
    "Once upon a time, in a small village,",
    "{\"name\": \"Ada\", \"age\":",
    "A contract is binding when",
)  # fmt: skip
STEPS = 8
"""Tokens of each prompt's continuation at which next tokens are compared."""
WORDS = ("bread", "grain", "mill", "river", "stone", "winter", "village", "and", "of", "the",
         "slowly", "old", "baker", "street", "morning", "light")  # fmt: skip

Stopped = Callable[[], None]
"""Raises when the work shall end."""


class Bench:
    """A running engine. All methods block; ``Unavailable`` when it does not answer."""

    def __init__(self, client: SyncClient, url: str, secret: str) -> None:
        self._client, self._url, self._secret = client, url, secret

    def speed(self, seed: int) -> Speed:
        """Measure once: a prompt read, an answer written, eight clients at once."""
        prompt = self._words(seed, READ)
        read = self._complete(prompt, 1)["timings"]["prompt_per_second"]
        told = self._complete(self._words(seed + 1, 8), WRITTEN)
        return Speed(
            reading=float(read),
            writing=float(told["timings"]["predicted_per_second"]),
            eight=self.eight(seed),
        )

    def eight(self, seed: int, clients: int = CLIENTS) -> float:
        """Return the tokens a second that so many clients get together."""
        prompts = [self._words(seed * 100 + number, 24) for number in range(clients)]
        begun = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            answers = list(pool.map(lambda prompt: self._complete(prompt, EACH), prompts))
        written = sum(int(answer["timings"]["predicted_n"]) for answer in answers)
        return written / (time.perf_counter() - begun)

    def embedding_speed(self, seed: int) -> Speed:
        """Measure an embedding model: tokens a second of one text, and of eight clients' texts."""
        one = self._embed_timed([self._words(seed, 200)])
        begun = time.perf_counter()
        with ThreadPoolExecutor(CLIENTS) as pool:
            texts = [[self._words(seed * 100 + n, 100)] for n in range(CLIENTS)]
            counts = list(pool.map(lambda text: self._embed(text)[1], texts))
        return Speed(reading=one, writing=one, eight=sum(counts) / (time.perf_counter() - begun))

    def prompts(self) -> list[list[int]]:
        """Return the prompts as token numbers."""
        return [
            self._post("/tokenize", {"content": prompt, "add_special": True})["tokens"]
            for prompt in PROMPTS
        ]

    def told(self, prompt: Sequence[int], steps: int = STEPS) -> list[tuple[int, Distribution]]:
        """Return the tokens a prompt goes on with, and the likeliest ones at each of these steps.

        With fewer steps than asked for where the answer ends.
        """
        answer = self._complete(list(prompt), steps, n_probs=LISTED)
        return [
            (each["id"], {e["id"]: math.exp(e["logprob"]) for e in each["top_logprobs"]})
            for each in answer["completion_probabilities"]
        ]

    def vectors(self) -> list[list[float]]:
        """Return the embeddings of the prompts."""
        return [self._embed([prompt])[0][0] for prompt in PROMPTS]

    def _words(self, seed: int, count: int) -> str:
        chosen = random.Random(seed)  # noqa: S311 - a text, not a secret
        return " ".join(chosen.choice(WORDS) for _ in range(count))

    def _complete(self, prompt: str | list[int], tokens: int, **more: object) -> Any:
        body = {
            "prompt": prompt, "n_predict": tokens, "temperature": 0, "cache_prompt": False,
            "ignore_eos": True, **more,
        }  # fmt: skip
        return self._post("/completion", body)

    def _embed_timed(self, texts: list[str]) -> float:
        begun = time.perf_counter()
        count = self._embed(texts)[1]
        return count / (time.perf_counter() - begun)

    def _embed(self, texts: list[str]) -> tuple[list[list[float]], int]:
        answer = self._post("/v1/embeddings", {"input": texts})
        vectors = [each["embedding"] for each in answer["data"]]
        return vectors, int(answer["usage"]["prompt_tokens"])

    def _post(self, path: str, body: object) -> Any:
        request = self._client.post(f"{self._url}{path}").bearer_auth(self._secret)
        try:
            response = request.body_bytes(msgspec.json.encode(body)).build().send()
            data = response.bytes().to_bytes()
        except PyreqwestError as error:
            raise EngineLost(
                "unavailable.engine", f"the engine went away: {error.message}"
            ) from error
        if response.status != 200:
            said = data[:300].decode("utf-8", "replace")
            raise Unavailable(
                "unavailable.engine", f"the engine answered {response.status}: {said}"
            )
        return msgspec.json.decode(data)


@contextmanager
def running(
    engine: Engine,
    launch: Launch,
    weights: Path,
    folder: Path,
    stopped: Stopped,
    draft: Path | None = None,
) -> Iterator[Bench]:
    """Start an engine, yield it once it answers, end it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    secret, ready = secrets.token_urlsafe(24), folder / f"{secrets.token_hex(6)}.ready"
    log = ready.with_suffix(".log")
    command = engine.command(launch, weights, secret, ready, draft=draft)
    if command is None:
        raise Unavailable("unavailable.engine", f"the engine {launch.engine} starts no process")
    identity = process.spawn(
        command.argv, log, payload=command.payload, environment=dict(environment()), owner=folder
    )
    try:
        url = _until_ready(identity, ready, log, stopped)
        timeout = timedelta(seconds=ANSWER)
        with SyncClientBuilder().timeout(timeout).build() as client:
            yield Bench(client, engine.endpoint(url).removesuffix("/v1"), secret)
    finally:
        process.send(identity, signal.SIGKILL)
        for path in (ready, log):
            path.unlink(missing_ok=True)


def _until_ready(identity: process.Identity, ready: Path, log: Path, stopped: Stopped) -> str:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        stopped()
        if ready.exists():
            return ready.read_text(encoding="ascii").strip()
        if not process.is_alive(identity):
            said = log.read_bytes()[-400:].decode("utf-8", "replace").strip()
            raise Unavailable("unavailable.engine", f"the engine does not start: {said}")
        time.sleep(0.05)
    raise Unavailable("unavailable.engine", f"the engine was not up within {PATIENCE:.0f} s")
