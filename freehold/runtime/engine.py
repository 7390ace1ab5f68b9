"""What an engine is: an OpenAI-compatible HTTP endpoint that we start, or are told of."""

from pathlib import Path
from typing import Protocol

import msgspec

from freehold.store.snapshot import Trust


class Native(msgspec.Struct, frozen=True, kw_only=True):
    """A llama.cpp server built for this machine: where it lies, and each file's SHA-256."""

    build: str
    directory: str
    files: tuple[tuple[str, str], ...]


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that decides how one replica runs; two equal launches are interchangeable.

    ``weights`` is a digest (local engines), ``url`` an endpoint (remote ones). ``context`` and
    ``slots`` are in tokens and parallel requests; ``bytes`` is the memory it is expected to take.
    ``weight`` is its speed beside the deployment's other replicas. ``adapters`` are digests of
    what is loaded beside the weights, to be chosen by a request. ``native`` is the build to run
    in place of the engine's own; ``batch`` tokens are read at once, ``cache_type`` is that of the
    key-value cache, ``flash`` says whether attention is fused: 0, empty and None leave that to the
    engine. ``draft`` is the digest of a small sibling that guesses ahead, ``drafted`` tokens.
    """

    deployment: str
    engine: str
    model: str
    task: str = "chat"
    weights: str | None = None
    adapters: tuple[str, ...] = ()
    version: int | None = None
    url: str | None = None
    upstream_key: str | None = None
    trust: Trust | None = None
    context: int = 0
    slots: int = 1
    threads: int = 0
    bytes: int = 0
    weight: float = 1.0
    native: Native | None = None
    batch: int = 0
    cache_type: str = ""
    flash: bool | None = None
    draft: str | None = None
    drafted: int = 0


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A process to start. ``payload`` goes to its standard input: secrets never show in ``ps``."""

    argv: tuple[str, ...]
    payload: bytes


class Engine(Protocol):
    """A kind of engine.

    ``streams_only``: it notices a client that hung up only while it streams. ``continues``: how it
    goes on with an answer begun elsewhere; ``prefill`` where a last message of the assistant is
    simply continued, ``final_message`` where ``continue_final_message`` must say so, or None.
    """

    streams_only: bool
    continues: str | None

    def command(
        self,
        launch: Launch,
        weights: Path,
        secret: str,
        ready: Path,
        adapters: tuple[Path, ...] = (),
        *,
        draft: Path | None = None,
    ) -> Command | None:
        """Return the process to start, or None when there is nothing to start.

        ``adapters`` and ``draft`` are loaded beside the weights; ``draft`` only where the launch
        names one.

        The process serves on loopback under ``secret`` and, once it can answer, writes its URL to
        ``ready``, whole or not at all.
        """
        ...

    def endpoint(self, url: str) -> str:
        """Return the base URL of the OpenAI routes, given where the engine listens."""
        ...
