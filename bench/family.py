"""A family of quantisations of one model, as people publish them: made with llama.cpp's own code.

The wheel's library exports its quantisers. A tensor whose type stays is copied; another one is
expanded to 32 bits and quantised again, as ``llama-quantize --allow-requantize`` does.
"""

import ctypes
import os
import struct
from collections.abc import Callable
from importlib import util
from pathlib import Path

from freehold.models.gguf import TENSOR_TYPES, Header, Tensor, read_header

NUMBERS = {name: number for number, (name, _, _) in TENSOR_TYPES.items()}
TO_FLOAT = 40
"""Where ``ggml_type_traits`` has its function to 32-bit floats."""
Retype = Callable[[Tensor], str]


def retype(source: Path, target: Path, wanted: Retype) -> Path:
    """Write a model anew with some tensors in other types; the header's keys stay."""
    header = read_header(source)
    library = _library()
    types = {tensor.name: wanted(tensor) for tensor in header.tensors}
    sizes = {tensor.name: _size(tensor, types[tensor.name]) for tensor in header.tensors}
    ordered = sorted(header.tensors, key=lambda tensor: tensor.offset)
    offsets, at = {}, 0
    for tensor in ordered:
        offsets[tensor.name] = at
        at += -(-sizes[tensor.name] // 32) * 32
    with source.open("rb") as old, target.open("wb") as new:
        new.write(_head(old, header, types, offsets))
        for tensor in ordered:
            old.seek(header.data_offset + tensor.offset)
            data = old.read(tensor.bytes)
            if types[tensor.name] != tensor.type:
                data = _again(library, data, tensor, types[tensor.name])
            new.write(data + bytes(-len(data) % 32))
    return target


def quants(source: Path, folder: Path) -> dict[str, Path]:
    """Return a family: what was published, a smaller and a larger mix, and per-tensor mixes."""

    def layer(tensor: Tensor) -> int:
        return int(tensor.name.split(".")[1]) if tensor.name.startswith("blk.") else -1

    layers = max(map(layer, read_header(source).tensors)) + 1

    def small(tensor: Tensor) -> str:  # as Q4_K_S: the finer half of Q4_K_M goes
        return "Q4_K" if tensor.type == "Q6_K" and layer(tensor) >= 0 else tensor.type

    def large(tensor: Tensor) -> str:  # as the "L" mixes: a finer embedding
        return "Q8_0" if tensor.name in ("token_embd.weight", "output.weight") else tensor.type

    def mixed(first: int, last: int) -> Retype:  # as a search by sensitivity leaves it
        def choose(tensor: Tensor) -> str:
            within = first <= layer(tensor) < last and "ffn_up" in tensor.name
            return "Q3_K" if within and tensor.type == "Q4_K" else tensor.type

        return choose

    made = {"as published": source}
    for name, wanted in (
        ("small", small),
        ("large", large),
        ("mixed early", mixed(0, layers // 2)),
        ("mixed late", mixed(layers // 2, layers)),
    ):
        made[name] = folder / f"{source.name[:12]}-{name.replace(' ', '-')}.gguf"
        if not made[name].exists():
            retype(source, made[name].with_suffix(".partial"), wanted).replace(made[name])
    return made


def _head(old: object, header: Header, types: dict[str, str], offsets: dict[str, int]) -> bytes:
    old.seek(0)  # type: ignore[attr-defined]
    data = old.read(header.data_offset)  # type: ignore[attr-defined]
    first = header.tensors[0].name.encode()
    start = data.rindex(struct.pack("<Q", len(first)) + first)
    infos = b"".join(
        struct.pack("<Q", len(t.name.encode())) + t.name.encode()
        + struct.pack("<I", len(t.shape)) + struct.pack(f"<{len(t.shape)}Q", *t.shape)
        + struct.pack("<IQ", NUMBERS[types[t.name]], offsets[t.name])
        for t in header.tensors
    )  # fmt: skip
    head = bytes(data[:start]) + infos
    return head + bytes(-len(head) % 32)


def _size(tensor: Tensor, kind: str) -> int:
    _, block, width = TENSOR_TYPES[NUMBERS[kind]]
    return tensor.elements // block * width


def _again(library: ctypes.CDLL, data: bytes, tensor: Tensor, kind: str) -> bytes:
    floats = (ctypes.c_float * tensor.elements)()
    library.ggml_get_type_traits.restype = ctypes.c_void_p
    traits = library.ggml_get_type_traits(NUMBERS[tensor.type])
    address = ctypes.c_void_p.from_address(traits + TO_FLOAT).value
    expand = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int64)(address or 0)
    expand(data, ctypes.addressof(floats), tensor.elements)
    out = ctypes.create_string_buffer(_size(tensor, kind))
    row = tensor.shape[0]
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    written = library.ggml_quantize_chunk(
        ctypes.c_int(NUMBERS[kind]), floats, out, ctypes.c_int64(0),
        ctypes.c_int64(tensor.elements // row), ctypes.c_int64(row), None,
    )  # fmt: skip
    assert written == len(out.raw), (tensor.name, written)
    return out.raw


def _library() -> ctypes.CDLL:
    found = util.find_spec("xllamacpp")
    assert found is not None
    assert found.submodule_search_locations
    folder = Path(found.submodule_search_locations[0])
    return ctypes.CDLL(str(next(folder.glob("xllamacpp*.so"))), mode=os.RTLD_LAZY)
