"""Make safetensors files and folders for tests."""

import json
import struct
from pathlib import Path
from typing import Any

from freehold.models.safetensors import DTYPES

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
    "vocab_size": 32,
    "torch_dtype": "bfloat16",
}


def header(entries: dict[str, Any], data: bytes = b"") -> bytes:
    """Return a file with this header, whatever it says, and this data."""
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


def safetensors(
    tensors: dict[str, tuple[str, list[int]]] | None = None,
    metadata: dict[str, str] | None = None,
) -> bytes:
    """Return a sound file of these tensors (dtype, shape), all zero."""
    tensors = {"model.embed_tokens.weight": ("F32", [32, 8])} if tensors is None else tensors
    entries: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for name, (dtype, shape) in tensors.items():
        count = 1
        for size in shape:
            count *= size
        size = count * DTYPES[dtype] // 8
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    return header(entries, bytes(at))


def folder(place: Path, **files: bytes | str | dict[str, Any]) -> Path:
    """Make a folder of a small Llama, with further files or other contents for its own.

    A file's name is written with ``__`` for a dot: ``README__md``.
    """
    place.mkdir(parents=True, exist_ok=True)
    whole: dict[str, Any] = {
        "config__json": CONFIG,
        "model__safetensors": safetensors(),
        "tokenizer__json": {"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}}},
        "tokenizer_config__json": {"tokenizer_class": "LlamaTokenizer"},
        **files,
    }
    for name, content in whole.items():
        if content is None:
            continue
        data = json.dumps(content) if isinstance(content, dict) else content
        target = place / name.replace("__", ".")
        target.write_bytes(data if isinstance(data, bytes) else data.encode())
    return place
