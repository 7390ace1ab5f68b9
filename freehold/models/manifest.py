"""What a model is, read off its header. Pure: a header in, a manifest out, and the memory it needs.

Key names are those of GGUF: ``general.*`` for all models, ``ARCHITECTURE.*`` for the numbers.
"""

import re
from collections import Counter
from types import MappingProxyType
from typing import Literal

import msgspec

from freehold.errors import Invalid
from freehold.models.gguf import Header
from freehold.models.licence import together

Task = Literal["chat", "completion", "embedding", "rerank"]

POOLING_RANK = 4
"""GGUF's number for a head that scores how relevant a text is to another."""
ENCODERS = frozenset(
    {"bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "neo-bert", "eurobert"}
)
FILE_TYPES = MappingProxyType(
    {
        0: "F32",
        1: "F16",
        2: "Q4_0",
        3: "Q4_1",
        7: "Q8_0",
        8: "Q5_0",
        9: "Q5_1",
        10: "Q2_K",
        11: "Q3_K_S",
        12: "Q3_K_M",
        13: "Q3_K_L",
        14: "Q4_K_S",
        15: "Q4_K_M",
        16: "Q5_K_S",
        17: "Q5_K_M",
        18: "Q6_K",
        19: "IQ2_XXS",
        20: "IQ2_XS",
        21: "Q2_K_S",
        22: "IQ3_XS",
        23: "IQ3_XXS",
        24: "IQ1_S",
        25: "IQ4_NL",
        26: "IQ3_S",
        27: "IQ3_M",
        28: "IQ2_S",
        29: "IQ2_M",
        30: "IQ4_XS",
        31: "IQ1_M",
        32: "BF16",
        36: "TQ1_0",
        37: "TQ2_0",
        38: "MXFP4_MOE",
    }
)
"""``general.file_type`` to the name people know a quantisation by."""


_LICENCE = ("general.license", "general.license.name")
_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}", re.ASCII)


class Tokenizer(msgspec.Struct, frozen=True, kw_only=True):
    """The tokenizer in the file. ``sha256`` is of its vocabulary as stored."""

    model: str | None
    pre: str | None
    tokens: int | None
    sha256: str | None


class Adapter(msgspec.Struct, frozen=True, kw_only=True):
    """What makes an adapter: how (``lora``), how wide, how strong, on which layers."""

    method: str
    rank: int | None = None
    alpha: float | None = None
    targets: tuple[str, ...] = ()


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a model. ``context`` is in tokens, ``head_*`` in elements a head.

    ``adapter`` is set where this is no model but a change to one, the first of ``base_models``.
    ``licence`` is what the files themselves say.
    """

    architecture: str
    task: Task
    name: str | None
    parameters: int
    context: int | None
    layers: int | None
    width: int | None
    heads: int | None
    kv_heads: int | None
    head_key: int | None
    head_value: int | None
    quantisation: str
    bits_per_weight: float
    tokenizer: Tokenizer | None
    chat_template: str | None
    licence: str | None
    base_models: tuple[str, ...]
    adapter: Adapter | None = None


def describe(header: Header) -> Manifest:
    """Return the manifest of a header; ``Invalid`` when it could not be run at all."""
    architecture = _text(header, "general.architecture")
    if not architecture:
        raise Invalid("invalid.gguf", "cannot use this model file: it names no architecture")
    if not _ARCHITECTURE.fullmatch(architecture):
        raise Invalid(
            "invalid.gguf", f"cannot use this model file: {architecture!r:.60} is no architecture"
        )
    kind = _text(header, "general.type")
    if kind not in (None, "model", "adapter"):
        raise Invalid(
            "invalid.gguf", f"cannot use this model file: it holds a part of type {kind!r:.40}"
        )
    if (_number(header, "split.count") or 1) > 1:
        raise Invalid(
            "invalid.gguf",
            "cannot use this model file: it is one of several parts, merge them with "
            "llama-gguf-split first",
        )
    if not header.tensors:
        raise Invalid("invalid.gguf", "cannot use this model file: it holds no tensors")
    parameters = sum(tensor.elements for tensor in header.tensors)
    weights = sum(tensor.bytes for tensor in header.tensors)
    heads = _number(header, f"{architecture}.attention.head_count")
    width = _number(header, f"{architecture}.embedding_length")
    head = width // heads if width and heads else None
    return Manifest(
        architecture=architecture,
        task=_task(header, architecture),
        name=_text(header, "general.name"),
        parameters=parameters,
        context=_number(header, f"{architecture}.context_length"),
        layers=_number(header, f"{architecture}.block_count"),
        width=width,
        heads=heads,
        kv_heads=_number(header, f"{architecture}.attention.head_count_kv") or heads,
        head_key=_number(header, f"{architecture}.attention.key_length") or head,
        head_value=_number(header, f"{architecture}.attention.value_length") or head,
        quantisation=_quantisation(header),
        bits_per_weight=round(weights * 8 / parameters, 2),
        tokenizer=_tokenizer(header),
        chat_template=_text(header, "tokenizer.chat_template"),
        licence=together(*map(header.metadata.get, _LICENCE)),
        base_models=_base_models(header),
        adapter=_adapter(header) if kind == "adapter" else None,
    )


CACHE_BITS = MappingProxyType({"": 16.0, "f16": 16.0, "q8_0": 8.5, "q4_0": 4.5})
"""Types of a key-value cache to the bits that a number takes."""


def memory_needed(
    manifest: Manifest, file_bytes: int, context: int, slots: int, cache_type: str = ""
) -> int:
    """Estimate the bytes a replica takes: weights, key-value cache, working buffers.

    The cache is ``layers x context x kv_heads x (key + value size)`` numbers, of 16 bits where
    ``cache_type`` says no other; slots share it. Buffers
    grow with the vocabulary (logits of a batch of 512) and the width. 96 MiB is the process.
    """
    per_token = (
        (manifest.layers or 32)
        * (manifest.kv_heads or 8)
        * ((manifest.head_key or 128) + (manifest.head_value or 128))
        * CACHE_BITS[cache_type]
        / 8
    )
    vocabulary = (manifest.tokenizer.tokens if manifest.tokenizer else None) or 32_000
    buffers = 512 * 4 * (vocabulary // 2 + 16 * (manifest.width or 4096)) + slots * 4 * 1024 * 1024
    return file_bytes + round(context * per_token) + buffers + 96 * 1024 * 1024


def _task(header: Header, architecture: str) -> Task:
    if header.metadata.get(f"{architecture}.pooling_type") == POOLING_RANK:
        return "rerank"
    causal = header.metadata.get(f"{architecture}.attention.causal", True)
    if architecture in ENCODERS or causal is False:
        return "embedding"
    return "chat" if _text(header, "tokenizer.chat_template") else "completion"


def _adapter(header: Header) -> Adapter:
    method = _text(header, "adapter.type")
    if method != "lora":
        raise Invalid(
            "invalid.gguf", f"cannot use this model file: an adapter of the type {method!r:.40}"
        )
    halves = [tensor for tensor in header.tensors if tensor.name.endswith(".lora_a")]
    alpha = header.metadata.get("adapter.lora.alpha")
    return Adapter(
        method=method,
        rank=max((tensor.shape[-1] for tensor in halves), default=None),
        alpha=float(alpha) if isinstance(alpha, (int, float)) else None,
        targets=tuple(
            sorted({tensor.name.split(".")[-3] for tensor in halves if tensor.name.count(".") > 2})
        ),
    )


def _quantisation(header: Header) -> str:
    number = header.metadata.get("general.file_type")
    if isinstance(number, int) and number in FILE_TYPES:
        return FILE_TYPES[number]
    share: Counter[str] = Counter()
    for tensor in header.tensors:
        share[tensor.type] += tensor.elements
    return share.most_common(1)[0][0]


def _tokenizer(header: Header) -> Tokenizer | None:
    model = _text(header, "tokenizer.ggml.model")
    tokens = header.arrays.get("tokenizer.ggml.tokens")
    if model is None and tokens is None:
        return None
    return Tokenizer(
        model=model,
        pre=_text(header, "tokenizer.ggml.pre"),
        tokens=tokens.count if tokens else None,
        sha256=tokens.sha256 if tokens else None,
    )


def _base_models(header: Header) -> tuple[str, ...]:
    count = min(_number(header, "general.base_model.count") or 0, 16)
    found = []
    for index in range(count):
        stem = f"general.base_model.{index}"
        name = _text(header, f"{stem}.repo_url") or _text(header, f"{stem}.name")
        if name and name not in found:
            found.append(name)
    return tuple(found)


def _text(header: Header, key: str) -> str | None:
    value = header.metadata.get(key)
    return value if isinstance(value, str) and value else None


def _number(header: Header, key: str) -> int | None:
    value = header.metadata.get(key)
    if isinstance(value, list):
        # Some architectures give one number a layer: the largest is what must fit.
        numbers = [each for each in value if isinstance(each, int) and not isinstance(each, bool)]
        value = max(numbers, default=None)
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        return None
    return value
