"""Make a small model that llama.cpp loads: random weights, the starter's own vocabulary."""

import random
import struct
from pathlib import Path

from freehold.models.gguf import Tensor, read_header
from freehold.models.gguf_write import entry, metadata_bytes, write

WIDTH, LAYERS, HEADS, INNER = 64, 2, 2, 256
TOKENS = 1024
BEFORE_MERGES = 252
"""Tokens of the starter that are special or single bytes."""


def model(
    starter: Path,
    target: Path,
    *,
    seed: int = 1,
    tied: bool = True,
    tokens: int = TOKENS,
    context: int = 512,
    idle: int = 0,
    experts: int = 0,
) -> Path:
    """Write a Llama of about 300,000 parameters, 32-bit floats.

    With ``experts``, each layer has so many, of which a token sees two.
    ``idle`` layers more change nothing: such a model writes what the one without them does, slower.
    """
    header = read_header(starter)
    entries = metadata_bytes(starter, header)
    vocabulary = tokens
    for key in entries:
        if key.startswith("tokenizer.ggml.") and key in header.arrays:
            # Tokens after the bytes come from merges, in their order: the first of each agree.
            count = tokens - BEFORE_MERGES if key.endswith("merges") else tokens
            entries[key] = _first(entries[key], count)
    numbers = {
        "llama.block_count": LAYERS + idle,
        "llama.embedding_length": WIDTH,
        "llama.feed_forward_length": INNER,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": HEADS,
        "llama.rope.dimension_count": WIDTH // HEADS,
        "llama.context_length": context,
    }
    if experts:
        numbers |= {"llama.expert_count": experts, "llama.expert_used_count": 2}
    for key in ("general.file_type", "llama.attention.key_length", "llama.attention.value_length"):
        entries.pop(key, None)
    entries |= {key: entry(key, number) for key, number in numbers.items()}
    entries["general.name"] = entry("general.name", f"tiny {seed}")
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (WIDTH, vocabulary)}
    for layer in range(LAYERS + idle):
        for name, shape in (
            ("attn_norm", (WIDTH,)),
            ("attn_q", (WIDTH, WIDTH)),
            ("attn_k", (WIDTH, WIDTH)),
            ("attn_v", (WIDTH, WIDTH)),
            ("attn_output", (WIDTH, WIDTH)),
            ("ffn_norm", (WIDTH,)),
            ("ffn_gate", (WIDTH, INNER)),
            ("ffn_up", (WIDTH, INNER)),
            ("ffn_down", (INNER, WIDTH)),
        ):
            if experts and name in ("ffn_gate", "ffn_up", "ffn_down"):
                shapes[f"blk.{layer}.{name}_exps.weight"] = (*shape, experts)
            else:
                shapes[f"blk.{layer}.{name}.weight"] = shape
        if experts:
            shapes[f"blk.{layer}.ffn_gate_inp.weight"] = (WIDTH, experts)
    shapes["output_norm.weight"] = (WIDTH,)
    if not tied:
        shapes["output.weight"] = (WIDTH, vocabulary)
    tensors = [_tensor(name, shape) for name, shape in shapes.items()]
    draw = random.Random(seed)

    def data(tensor: Tensor) -> list[bytes]:
        if len(tensor.shape) == 1:
            return [struct.pack("<f", 1.0) * tensor.elements]
        if tensor.name.startswith("blk.") and int(tensor.name.split(".")[1]) >= LAYERS:
            parts = ("attn_output", "ffn_down")  # nothing comes of it
            if any(part in tensor.name for part in parts):
                return [bytes(tensor.bytes)]
            return [(struct.pack("<f", 0.3) + struct.pack("<f", -0.2)) * (tensor.elements // 2)]
        same = tensor.name == "output.weight"
        source = random.Random(seed + 7) if same or tensor.name == "token_embd.weight" else draw
        # A pool of draws, shuffled row by row: a million calls of gauss would take seconds.
        pool = [struct.pack("<f", source.gauss(0, 0.4)) for _ in range(997)]
        row = b"".join(pool)
        wanted = tensor.bytes
        return [(row * (wanted // len(row) + 1))[:wanted]]

    write(target, entries, tensors, data)
    return target


def _tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    elements = 1
    for size in shape:
        elements *= size
    return Tensor(name, "F32", shape, 0, elements * 4)


def _first(data: bytes, count: int) -> bytes:
    """Return the entry of an array that ends after ``count`` items."""
    length = struct.unpack_from("<Q", data)[0]
    at = 8 + length
    kind, inner, _ = struct.unpack_from("<IIQ", data, at)
    start = end = at + 16
    if inner == 8:
        for _ in range(count):
            end += 8 + struct.unpack_from("<Q", data, end)[0]
    else:
        end += 4 * count
    return data[:at] + struct.pack("<IIQ", kind, inner, count) + data[start:end]
