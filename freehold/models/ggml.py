"""ggml's own arithmetic, by ctypes over the shared object that the engine's wheel ships.

Only children load this: a crash of native code takes the child and nothing else. Structures are
passed by value, so their layout must be that of the pinned wheel: ``library`` compares defaults,
names and sizes with what this version is known to say, and refuses anything else.
"""

import ctypes as c
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from freehold.errors import Unavailable
from freehold.models.gguf import TENSOR_TYPES

TYPE_NUMBERS = MappingProxyType({name: number for number, (name, _, _) in TENSOR_TYPES.items()})
MUL_MAT, MUL_MAT_ID, GET_ROWS = 29, 30, 40
"""Operations, by ggml's numbers."""
ROWS_AT_ONCE = 1024 * 1024
"""Elements that are held as 32-bit floats at once and thread."""

EvalCallback = c.CFUNCTYPE(c.c_bool, c.c_void_p, c.c_bool, c.c_void_p)
LogCallback = c.CFUNCTYPE(None, c.c_int, c.c_char_p, c.c_void_p)


class InitParams(c.Structure):
    """``ggml_init_params``."""

    _fields_ = (("mem_size", c.c_size_t), ("mem_buffer", c.c_void_p), ("no_alloc", c.c_bool))


class TensorStruct(c.Structure):
    """``ggml_tensor``."""

    _fields_ = (
        ("type", c.c_int),
        ("buffer", c.c_void_p),
        ("ne", c.c_int64 * 4),
        ("nb", c.c_size_t * 4),
        ("op", c.c_int),
        ("op_params", c.c_int32 * 16),
        ("flags", c.c_int32),
        ("src", c.c_void_p * 10),
        ("view_src", c.c_void_p),
        ("view_offs", c.c_size_t),
        ("data", c.c_void_p),
        ("name", c.c_char * 64),
        ("extra", c.c_void_p),
        ("padding", c.c_char * 8),
    )


class TypeTraits(c.Structure):
    """``ggml_type_traits``."""

    _fields_ = (
        ("type_name", c.c_char_p),
        ("blck_size", c.c_int64),
        ("blck_size_interleave", c.c_int64),
        ("type_size", c.c_size_t),
        ("is_quantized", c.c_bool),
        ("to_float", c.CFUNCTYPE(None, c.c_void_p, c.c_void_p, c.c_int64)),
        ("from_float_ref", c.c_void_p),
    )


class ModelParams(c.Structure):
    """``llama_model_params``."""

    _fields_ = (
        ("devices", c.c_void_p),
        ("tensor_buft_overrides", c.c_void_p),
        ("n_gpu_layers", c.c_int32),
        ("split_mode", c.c_int),
        ("load_mode", c.c_int),
        ("lazy_mode", c.c_int),
        ("main_gpu", c.c_int32),
        ("tensor_split", c.c_void_p),
        ("progress_callback", c.c_void_p),
        ("progress_callback_user_data", c.c_void_p),
        ("kv_overrides", c.c_void_p),
        ("vocab_only", c.c_bool),
        ("check_tensors", c.c_bool),
        ("use_extra_bufts", c.c_bool),
        ("no_host", c.c_bool),
        ("no_alloc", c.c_bool),
        ("load_mtp", c.c_bool),
    )


class ContextParams(c.Structure):
    """``llama_context_params``."""

    _fields_ = (
        ("n_ctx", c.c_uint32),
        ("n_batch", c.c_uint32),
        ("n_ubatch", c.c_uint32),
        ("n_seq_max", c.c_uint32),
        ("n_rs_seq", c.c_uint32),
        ("n_outputs_max", c.c_uint32),
        ("n_outputs_max_per_seq", c.c_uint32),
        ("n_threads", c.c_int32),
        ("n_threads_batch", c.c_int32),
        ("ctx_type", c.c_int),
        ("rope_scaling_type", c.c_int),
        ("pooling_type", c.c_int),
        ("attention_type", c.c_int),
        ("flash_attn_type", c.c_int),
        ("rope_freq_base", c.c_float),
        ("rope_freq_scale", c.c_float),
        ("yarn_ext_factor", c.c_float),
        ("yarn_attn_factor", c.c_float),
        ("yarn_beta_fast", c.c_float),
        ("yarn_beta_slow", c.c_float),
        ("yarn_orig_ctx", c.c_uint32),
        ("defrag_thold", c.c_float),
        ("cb_eval", EvalCallback),
        ("cb_eval_user_data", c.c_void_p),
        ("type_k", c.c_int),
        ("type_v", c.c_int),
        ("moe_cache_size", c.c_size_t),
        ("abort_callback", c.c_void_p),
        ("abort_callback_data", c.c_void_p),
        ("embeddings", c.c_bool),
        ("offload_kqv", c.c_bool),
        ("no_perf", c.c_bool),
        ("op_offload", c.c_bool),
        ("swa_full", c.c_bool),
        ("kv_unified", c.c_bool),
        ("samplers", c.c_void_p),
        ("n_samplers", c.c_size_t),
        ("ctx_other", c.c_void_p),
    )


class Batch(c.Structure):
    """``llama_batch``."""

    _fields_ = (
        ("n_tokens", c.c_int32),
        ("token", c.POINTER(c.c_int32)),
        ("embd", c.c_void_p),
        ("pos", c.POINTER(c.c_int32)),
        ("n_seq_id", c.POINTER(c.c_int32)),
        ("seq_id", c.POINTER(c.POINTER(c.c_int32))),
        ("logits", c.POINTER(c.c_int8)),
    )


P, I, I64, S, F = c.c_void_p, c.c_int, c.c_int64, c.c_size_t, c.c_float  # noqa: E741
_TENSOR = c.POINTER(TensorStruct)

_FUNCTIONS: tuple[tuple[str, Any, tuple[Any, ...]], ...] = (
    ("ggml_init", P, (InitParams,)),
    ("ggml_free", None, (P,)),
    ("ggml_set_no_alloc", None, (P, c.c_bool)),
    ("ggml_tensor_overhead", S, ()),
    ("ggml_graph_overhead", S, ()),
    ("ggml_new_graph", P, (P,)),
    ("ggml_build_forward_expand", None, (P, _TENSOR)),
    ("ggml_graph_compute_with_ctx", I, (P, P, I)),
    ("ggml_new_tensor_1d", _TENSOR, (P, I, I64)),
    ("ggml_new_tensor_2d", _TENSOR, (P, I, I64, I64)),
    ("ggml_soft_max", _TENSOR, (P, _TENSOR)),
    ("ggml_sqr", _TENSOR, (P, _TENSOR)),
    ("ggml_sub", _TENSOR, (P, _TENSOR, _TENSOR)),
    ("ggml_mul", _TENSOR, (P, _TENSOR, _TENSOR)),
    ("ggml_add", _TENSOR, (P, _TENSOR, _TENSOR)),
    ("ggml_sum_rows", _TENSOR, (P, _TENSOR)),
    ("ggml_argmax", _TENSOR, (P, _TENSOR)),
    ("ggml_abs", _TENSOR, (P, _TENSOR)),
    ("ggml_pool_1d", _TENSOR, (P, _TENSOR, I, I, I, I)),
    ("ggml_cast", _TENSOR, (P, _TENSOR, I)),
    ("ggml_cont", _TENSOR, (P, _TENSOR)),
    ("ggml_transpose", _TENSOR, (P, _TENSOR)),
    ("ggml_quantize_chunk", S, (I, P, P, I64, I64, I64, P)),
    ("ggml_quantize_init", None, (I,)),
    ("ggml_quantize_requires_imatrix", c.c_bool, (I,)),
    ("ggml_get_type_traits", c.POINTER(TypeTraits), (I,)),
    ("ggml_op_name", c.c_char_p, (I,)),
    ("ggml_fp32_to_fp16_row", None, (P, P, I64)),
    ("ggml_fp32_to_bf16_row", None, (P, P, I64)),
    ("ggml_cpu_init", None, ()),
    ("llama_backend_init", None, ()),
    ("llama_log_set", None, (LogCallback, P)),
    ("llama_model_default_params", ModelParams, ()),
    ("llama_context_default_params", ContextParams, ()),
    ("llama_model_load_from_file", P, (c.c_char_p, ModelParams)),
    ("llama_model_free", None, (P,)),
    ("llama_init_from_model", P, (P, ContextParams)),
    ("llama_free", None, (P,)),
    ("llama_model_get_vocab", P, (P,)),
    ("llama_vocab_n_tokens", c.c_int32, (P,)),
    ("llama_vocab_get_add_bos", c.c_bool, (P,)),
    ("llama_vocab_bos", c.c_int32, (P,)),
    ("llama_tokenize", c.c_int32, (P, c.c_char_p, I, P, I, c.c_bool, c.c_bool)),
    ("llama_batch_init", Batch, (c.c_int32, c.c_int32, c.c_int32)),
    ("llama_batch_free", None, (Batch,)),
    ("llama_decode", c.c_int32, (P, Batch)),
    ("llama_encode", c.c_int32, (P, Batch)),
    ("llama_get_memory", P, (P,)),
    ("llama_memory_clear", None, (P, c.c_bool)),
    ("llama_synchronize", None, (P,)),
    ("llama_get_logits", P, (P,)),
    ("llama_get_embeddings_seq", P, (P, c.c_int32)),
    ("llama_model_n_embd_out", c.c_int32, (P,)),
    ("llama_model_n_cls_out", c.c_uint32, (P,)),
    ("llama_pooling_type", I, (P,)),
)


@cache
def library() -> Any:
    """Return the checked library; ``Unavailable`` when it is not the one this file describes."""
    path = _shared_object()
    try:
        found = c.CDLL(str(path))
        for name, result, arguments in _FUNCTIONS:
            function = getattr(found, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise _unknown(str(error)) from error
    _check(found)
    return found


def _shared_object() -> Path:
    spec = find_spec("xllamacpp")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    names = sorted(folder.glob("xllamacpp*.so")) if folder else []
    if not names:
        raise _unknown("the package xllamacpp has no shared object on this system")
    return names[0]


def _check(found: Any) -> None:
    """Hold defaults, sizes and names against those of the pinned version."""
    found.ggml_cpu_init()
    model, context = found.llama_model_default_params(), found.llama_context_default_params()
    said = (
        (model.n_gpu_layers, model.split_mode, model.load_mode, model.lazy_mode, model.main_gpu),
        (model.vocab_only, model.use_extra_bufts, model.no_alloc, model.load_mtp),
        (context.n_ctx, context.n_batch, context.n_ubatch, context.n_seq_max),
        (context.n_outputs_max, context.n_outputs_max_per_seq, context.pooling_type),
        (context.flash_attn_type, context.yarn_beta_slow, context.type_k, context.type_v),
        (context.embeddings, context.offload_kqv, context.swa_full, context.kv_unified),
        tuple(map(found.ggml_op_name, (MUL_MAT, MUL_MAT_ID, GET_ROWS))),
        found.ggml_tensor_overhead() - c.sizeof(TensorStruct),
    )
    known = (
        (-1, 1, -1, 1, 0),
        (False, True, False, False),
        (512, 2048, 512, 1),
        (0, 1, -1),
        (-1, -1.0, 1, 1),
        (False, True, True, False),
        (b"MUL_MAT", b"MUL_MAT_ID", b"GET_ROWS"),
        32,
    )
    if said != known:
        wrong = next((a, b) for a, b in zip(said, known, strict=True) if a != b)
        raise _unknown(f"it says {wrong[0]} where {wrong[1]} was expected")
    for number, (name, block, size) in TENSOR_TYPES.items():
        traits = found.ggml_get_type_traits(number).contents
        if (traits.blck_size, traits.type_size) != (block, size):
            raise _unknown(f"its type {number} is not {name}")


def _unknown(why: str) -> Unavailable:
    return Unavailable(
        "unavailable.ggml",
        f"the installed xllamacpp is not the version that models are compressed with: {why}; "
        "install the version of requirements.lock",
    )


class Graph:
    """A small computation: build it with the methods, ``run`` it, read what came out."""

    def __init__(self, size: int) -> None:
        self._library = library()
        self._context = self._library.ggml_init(InitParams(size, None, False))
        if not self._context:
            raise Unavailable("unavailable.memory", f"no memory for {size} bytes of arithmetic")

    def tensor(self, kind: str, cols: int, rows: int = 1, at: int | None = None) -> Any:
        """Return a matrix of ``rows`` times ``cols``; with ``at`` it lies at that address."""
        self._library.ggml_set_no_alloc(self._context, at is not None)
        made = self._library.ggml_new_tensor_2d(self._context, TYPE_NUMBERS[kind], cols, rows)
        self._library.ggml_set_no_alloc(self._context, False)
        if at is not None:
            made.contents.data = at
        return made

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._library, f"ggml_{name}")
        return lambda *arguments: function(self._context, *arguments)

    def run(self, *results: Any, threads: int = 1) -> None:
        """Compute these."""
        graph = self._library.ggml_new_graph(self._context)
        for result in results:
            self._library.ggml_build_forward_expand(graph, result)
        if self._library.ggml_graph_compute_with_ctx(self._context, graph, threads):
            raise Unavailable("unavailable.ggml", "the arithmetic of a compression failed")

    def free(self) -> None:
        """Give the memory back."""
        self._library.ggml_free(self._context)


@contextmanager
def graph(size: int) -> Iterator[Graph]:
    """Yield a computation of at most ``size`` bytes."""
    made = Graph(
        size + 65536 + 64 * library().ggml_tensor_overhead() + library().ggml_graph_overhead()
    )
    try:
        yield made
    finally:
        made.free()


def row_bytes(kind: str, cols: int) -> int:
    """Return the bytes of a row of ``cols`` elements."""
    _, block, size = TENSOR_TYPES[TYPE_NUMBERS[kind]]
    return cols // block * size


def to_floats(kind: str, source: int, elements: int, target: Any) -> None:
    """Write ``elements`` of a type, at an address, as 32-bit floats."""
    if kind == "F32":
        c.memmove(target, source, elements * 4)
        return
    traits = library().ggml_get_type_traits(TYPE_NUMBERS[kind]).contents
    traits.to_float(
        source, c.addressof(target) if not isinstance(target, int) else target, elements
    )


def from_floats(
    kind: str, source: Any, target: Any, rows: int, cols: int, importance: Any = None
) -> None:
    """Write floats as a type; ``importance`` has a weight a column."""
    at = importance if importance is not None else None
    library().ggml_quantize_chunk(TYPE_NUMBERS[kind], source, target, 0, rows, cols, at)


def addressable(data: Any) -> int:
    """Return the address of what a writable buffer holds."""
    return c.addressof((c.c_char * len(data)).from_buffer(data))


class Threads:
    """Runs native calls on several threads: ctypes lets go of the interpreter meanwhile."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, "ggml")

    def each(self, function: Any, items: Any) -> list[Any]:
        """Return the results in order."""
        return list(self._pool.map(function, items))
