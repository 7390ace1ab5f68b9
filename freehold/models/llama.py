"""A loaded model, by ctypes: tokens in, scores or embeddings out. Only children load this."""

import ctypes as c
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count as count_from
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from freehold.errors import Unavailable
from freehold.models.ggml import (
    TYPE_NUMBERS,
    Batch,
    EvalCallback,
    LogCallback,
    TensorStruct,
    library,
)

POOLING_RANK = 4
"""llama.cpp's number for a head that scores."""
Watch = Callable[[TensorStruct, bool], bool]
"""Called for every node: with ``True`` to ask whether it is wanted, with ``False`` when it is."""

Item = TypeVar("Item")
Result = TypeVar("Result")

_said: list[str] = []


def _keep(_level: int, text: bytes, _data: object) -> None:
    _said.append(text.decode(errors="replace").strip())
    del _said[:-8]


_KEEP = LogCallback(_keep)


class Model:
    """Weights in memory. ``writable`` keeps them out of the file and as they stand in it."""

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        self._library = library()
        self._library.llama_log_set(_KEEP, None)
        self._library.llama_backend_init()
        params = self._library.llama_model_default_params()
        params.n_gpu_layers = 0
        params.load_mode = 0 if writable else 1
        params.use_extra_bufts = False
        self.handle = self._library.llama_model_load_from_file(str(path).encode(), params)
        if not self.handle:
            raise Unavailable(
                "unavailable.load", f"llama.cpp cannot load the model: {' '.join(_said)[-300:]}"
            )
        self._vocabulary = self._library.llama_model_get_vocab(self.handle)
        self.tokens = int(self._library.llama_vocab_n_tokens(self._vocabulary))
        self.begins = (
            int(self._library.llama_vocab_bos(self._vocabulary))
            if self._library.llama_vocab_get_add_bos(self._vocabulary)
            else None
        )
        self.width = int(self._library.llama_model_n_embd_out(self.handle))
        self.scores = int(self._library.llama_model_n_cls_out(self.handle))

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Return the tokens of a text; ``special`` adds what the model wants around it."""
        data = text.encode()
        room = len(data) + 16
        found = (c.c_int32 * room)()
        count = self._library.llama_tokenize(
            self._vocabulary, data, len(data), c.addressof(found), room, special, special
        )
        if count < 0:
            raise Unavailable("unavailable.tokens", "the model cannot read this text")
        return list(found[:count])

    def close(self) -> None:
        """Give the memory back."""
        self._library.llama_model_free(self.handle)


class Context:
    """Where tokens go through a model: ``length`` of them at most, one text at a time."""

    def __init__(
        self,
        model: Model,
        length: int,
        threads: int,
        *,
        watch: Watch | None = None,
        cache: str = "F16",
        embeds: bool = False,
    ) -> None:
        self._library = library()
        self.model, self.length = model, length
        params = self._library.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = length
        params.n_outputs_max = length
        params.n_outputs_max_per_seq = 0
        params.n_threads = params.n_threads_batch = threads
        params.type_k = params.type_v = TYPE_NUMBERS[cache]
        params.flash_attn_type = 0 if cache == "F16" else 1
        params.embeddings = embeds
        # Kept: the library calls it for as long as the context lives.
        self._watch = EvalCallback(_watcher(watch)) if watch else None
        if self._watch is not None:
            params.cb_eval = self._watch
        self.handle = self._library.llama_init_from_model(model.handle, params)
        if not self.handle:
            raise Unavailable(
                "unavailable.load", f"llama.cpp makes no context: {' '.join(_said)[-300:]}"
            )
        self._batch: Batch = self._library.llama_batch_init(length, 0, 1)

    def run(self, tokens: Sequence[int], first: int = 0, every: int = 1) -> int:
        """Put a whole text through; return the address of its scores from ``first`` on.

        They are rows of as many floats as there are tokens in the vocabulary, of ``every`` so
        manyth position.
        """
        self._fill(tokens, first, every)
        self._library.llama_memory_clear(self._library.llama_get_memory(self.handle), False)
        if code := self._library.llama_decode(self.handle, self._batch):
            raise Unavailable("unavailable.decode", f"llama.cpp cannot run the model ({code})")
        self._library.llama_synchronize(self.handle)
        return int(self._library.llama_get_logits(self.handle) or 0)

    def embed(self, tokens: Sequence[int]) -> list[float]:
        """Return the embedding of a whole text, of length 1; the scores of a model that ranks."""
        self._fill(tokens, 0)
        memory = self._library.llama_get_memory(self.handle)
        if memory:
            self._library.llama_memory_clear(memory, False)
        call = self._library.llama_decode if memory else self._library.llama_encode
        if code := call(self.handle, self._batch):
            raise Unavailable("unavailable.decode", f"llama.cpp cannot run the model ({code})")
        at = self._library.llama_get_embeddings_seq(self.handle, 0)
        if not at:
            raise Unavailable("unavailable.decode", "the model gives no embedding of a text")
        if self._library.llama_pooling_type(self.handle) == POOLING_RANK:
            return list((c.c_float * self.model.scores).from_address(at))
        found = (c.c_float * self.model.width).from_address(at)
        norm = sum(x * x for x in found) ** 0.5 or 1.0
        return [x / norm for x in found]

    def close(self) -> None:
        """Give the memory back."""
        self._library.llama_batch_free(self._batch)
        self._library.llama_free(self.handle)

    def _fill(self, tokens: Sequence[int], first: int, every: int = 1) -> None:
        batch = self._batch
        batch.n_tokens = len(tokens)
        for index, token in enumerate(tokens):
            batch.token[index] = token
            batch.pos[index] = index
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = 0
            batch.logits[index] = index >= first and (index - first) % every == 0


class Readers:
    """Several contexts of one model, one thread each: texts go to whoever is free.

    Two threads in one context wait for each other at every layer, which costs five times the work
    where others want the processor too (measured); two contexts never wait.
    """

    def __init__(self, contexts: Sequence[Context]) -> None:
        self.model = contexts[0].model
        self.told: Callable[[int], None] = lambda _: None
        """Told how many of the items are done, by ``each``, in any thread."""
        self._free: SimpleQueue[Context] = SimpleQueue()
        self._contexts = contexts
        for context in contexts:
            self._free.put(context)
        self._pool = ThreadPoolExecutor(len(contexts), "reader")

    def each(self, read: Callable[[Context, Item], Result], items: Iterable[Item]) -> list[Result]:
        """Return what ``read`` made of each item, in order."""

        done = count_from(1)

        def take(item: Item) -> Result:
            context = self._free.get()
            try:
                return read(context, item)
            finally:
                self._free.put(context)
                self.told(next(done))

        return list(self._pool.map(take, items))

    def close(self) -> None:
        """Give the memory back."""
        self._pool.shutdown()
        for context in self._contexts:
            context.close()


def readers(
    model: Model, length: int, count: int, *, cache: str = "F16", embeds: bool = False
) -> Readers:
    """Return ``count`` contexts for texts of at most ``length`` tokens."""
    contexts = [Context(model, length, 1, cache=cache, embeds=embeds) for _ in range(count)]
    return Readers(contexts)


def _watcher(watch: Watch) -> Any:
    def call(at: int, ask: bool, _data: object) -> bool:
        return watch(TensorStruct.from_address(at), ask)

    return call
