"""``engine.llamacpp``: llama.cpp's own server in a child process, from a prebuilt wheel or a build.

The wheel is loaded in the child only (``python -m freehold.builtin.engine_llamacpp``), so a crash
in native code takes one replica and nothing else, and control stays small. A build for this machine
is started the same way, by ``engine_native``.
"""

import os
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec

from freehold.runtime.engine import Command, Launch, Native


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the child is told on its standard input."""

    weights: str
    alias: str
    secret: str
    ready: str
    context: int
    slots: int
    threads: int
    encoder: bool
    reranks: bool = False
    adapters: list[str] = []
    batch: int = 0
    cache_type: str = ""
    flash: bool | None = None
    draft: str = ""
    drafted: int = 0
    native: Native | None = None


class LlamaCpp:
    """Runs GGUF models. It only notices a client that hung up while it streams (measured: a
    request that does not stream runs to its end, 19 s in one trial, against 13 ms)."""

    streams_only = True
    continues = "prefill"

    def command(
        self,
        launch: Launch,
        weights: Path,
        secret: str,
        ready: Path,
        adapters: tuple[Path, ...] = (),
        *,
        draft: Path | None = None,
    ) -> Command:
        """Return the child to start."""
        order = Order(
            weights=str(weights),
            alias=launch.model,
            secret=secret,
            ready=str(ready),
            context=launch.context,
            slots=launch.slots,
            threads=launch.threads or _physical_cores(),
            encoder=launch.task in ("embedding", "rerank"),
            reranks=launch.task == "rerank",
            adapters=[str(path) for path in adapters],
            batch=launch.batch,
            cache_type=launch.cache_type,
            flash=launch.flash,
            draft=str(draft) if draft else "",
            drafted=launch.drafted,
            native=launch.native,
        )
        module = "engine_llamacpp" if launch.native is None else "engine_native"
        argv = (sys.executable, "-m", f"freehold.builtin.{module}", launch.deployment)
        return Command(argv=argv, payload=msgspec.json.encode(order))

    def endpoint(self, url: str) -> str:
        """Return the base of the OpenAI routes."""
        return f"{url}/v1"


def serve(order: Order) -> None:
    """Load the model, serve it on a free loopback port, tell where, and stay."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = order.weights
    params.model_alias = {order.alias}
    params.api_keys = [order.secret]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = order.context
    params.n_parallel = order.slots
    params.kv_unified = True
    params.cpuparams.n_threads = order.threads
    params.cpuparams_batch.n_threads = order.threads
    # Embeddings come at no cost to generation (measured), so every replica offers them.
    params.embedding = True
    if not order.encoder:
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    if order.reranks:
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
    # Loaded once, beside the weights; each request says which of them counts, and how much.
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, 0.0) for path in order.adapters]
    params.lora_init_without_apply = True
    if order.adapters:
        # What slots forget is kept by its prompt alone, and would come back under another adapter
        # (measured). A slot itself starts anew when the adapter changes.
        params.cache_ram_mib = 0
        params.cache_idle_slots = False
    _tune(params, order)
    params.ui = False
    params.verbosity = 2
    # Reads the archive's own template; our rooms never render one.
    params.use_jinja = True
    server = xllamacpp.Server(params)
    announce(Path(order.ready), server.listening_address)
    threading.Event().wait()


def _tune(params: Any, order: Order) -> None:
    import xllamacpp

    params.n_ubatch = at_once(order.batch or params.n_ubatch, order.slots)
    params.n_batch = max(params.n_ubatch, params.n_batch)
    if order.cache_type:
        kind = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{order.cache_type.upper()}")
        params.cache_type_k = params.cache_type_v = kind
    if order.flash is not None:
        known = xllamacpp.llama_flash_attn_type
        params.flash_attn_type = (
            known.LLAMA_FLASH_ATTN_TYPE_ENABLED
            if order.flash
            else known.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
    if order.draft:
        kinds = xllamacpp.common_speculative_type
        params.speculative.types = [kinds.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE]
        draft = params.speculative.draft
        draft.mparams.path = order.draft
        draft.n_max = order.drafted or draft.n_max
        draft.cpuparams.n_threads = draft.cpuparams_batch.n_threads = order.threads


def at_once(batch: int, slots: int) -> int:
    """Return how many tokens are computed at a time: of ``batch``, a multiple of the slots. Pure.

    With any other number llama.cpp aborts as it starts, where it offers pooled embeddings.
    """
    return max(slots, batch - batch % slots)


def announce(ready: Path, url: str) -> None:
    """Write where the engine serves, whole or not at all."""
    partial = ready.with_name(f"{ready.name}.partial")
    partial.write_text(url, encoding="ascii")
    partial.replace(ready)


def _physical_cores() -> int:
    import psutil

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(psutil.cpu_count(logical=False) or 1, usable or 1))


if __name__ == "__main__":
    os.umask(0o077)
    serve(msgspec.json.decode(sys.stdin.buffer.read(), type=Order))
