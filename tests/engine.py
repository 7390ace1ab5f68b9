"""llama.cpp's server on one file, started as Freehold starts it, for tests of what it answers."""

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freehold.builtin.engine_llamacpp import LlamaCpp
from freehold.runtime.engine import Launch
from tests.house import eventually

SECRET = "a-secret-of-tests"


@dataclass
class Engine:
    """A running server."""

    url: str

    def ask(self, path: str, **body: Any) -> Any:
        """Return the answer to a request."""
        request = urllib.request.Request(self.url + path, json.dumps(body).encode())
        request.add_header("content-type", "application/json")
        request.add_header("authorization", f"Bearer {SECRET}")
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read())

    def tokens(self, text: str, *, special: bool = False) -> list[int]:
        """Return a text's tokens."""
        found: list[int] = self.ask("/tokenize", content=text, add_special=special)["tokens"]
        return found

    def logprobs(
        self, prompt: list[int], size: int, **more: Any
    ) -> tuple[list[int], dict[int, float]]:
        """Return a prompt, and the log-probability of every token after it.

        The server tells nothing of a token that ends an answer or is half a letter: then of a
        shorter prompt.
        """
        for length in range(len(prompt), 0, -1):
            answer = self.ask(
                "/completion", prompt=prompt[:length], n_predict=1, n_probs=size, temperature=0.0,
                **{"cache_prompt": False, **more},
            )  # fmt: skip
            for each in answer.get("completion_probabilities") or ():
                top = each["top_logprobs"]
                return prompt[:length], {one["id"]: one["logprob"] for one in top}
        raise AssertionError("no prompt has a next token that can be shown")


@contextmanager
def engine(weights: Path, scratch: Path, *adapters: Path, **launch: Any) -> Iterator[Engine]:
    """Run a server on a GGUF file while the block runs."""
    told = Launch(deployment="d", engine="llamacpp", model="m", weights="-", threads=1,
                  **{"context": 512, **launch})  # fmt: skip
    ready = scratch / f"{weights.stem}.ready"
    ready.unlink(missing_ok=True)
    command = LlamaCpp().command(told, weights, SECRET, ready, adapters)
    log = (scratch / f"{weights.stem}.log").open("wb")
    with log, subprocess.Popen(command.argv, stdin=subprocess.PIPE, stdout=log, stderr=log) as run:
        try:
            assert run.stdin is not None
            run.stdin.write(command.payload)
            run.stdin.close()

            def is_up() -> bool:
                assert run.poll() is None, Path(log.name).read_text()
                return ready.exists()

            eventually(is_up, "the engine is up")
            yield Engine(ready.read_text())
        finally:
            run.kill()
