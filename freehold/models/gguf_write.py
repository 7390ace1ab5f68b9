"""Write a GGUF file that has another's metadata and vocabulary, and tensors of other types.

One pass, one tensor at a time, into a name nobody reads; the file appears whole or not at all.
"""

import os
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from freehold.errors import Broken, Invalid
from freehold.models.gguf import TENSOR_TYPES, Header, Scalar, Tensor, read_header

ALIGNMENT = 32
_NUMBERS = {name: number for number, (name, _, _) in TENSOR_TYPES.items()}
_WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY, _UINT32, _FLOAT32, _BOOL = 8, 9, 4, 6, 7

Data = Iterable[bytes | bytearray | memoryview]


def metadata_bytes(path: Path, header: Header) -> dict[str, bytes]:
    """Return every key of a file that ``read_header`` found sound, with the bytes of its entry."""
    with path.open("rb") as file:
        start = file.read(header.data_offset)
    count = struct.unpack_from("<Q", start, 16)[0]
    at, found = 24, {}
    for _ in range(count):
        begin = at
        length = struct.unpack_from("<Q", start, at)[0]
        key = start[at + 8 : at + 8 + length].decode()
        at = _after(start, at + 8 + length)
        found[key] = start[begin:at]
    return found


def entry(key: str, value: Scalar) -> bytes:
    """Return the bytes of a key and its value."""
    name = key.encode()
    head = struct.pack("<Q", len(name)) + name
    if isinstance(value, bool):
        return head + struct.pack("<IB", _BOOL, value)
    if isinstance(value, int):
        return head + struct.pack("<II", _UINT32, value)
    if isinstance(value, float):
        return head + struct.pack("<If", _FLOAT32, value)
    text = value.encode()
    return head + struct.pack("<IQ", _STRING, len(text)) + text


def retyped(tensor: Tensor, kind: str) -> Tensor:
    """Return a tensor as it is when stored as ``kind``, at offset 0."""
    _, block, size = TENSOR_TYPES[_NUMBERS[kind]]
    if tensor.shape[0] % block:
        text = f"the tensor {tensor.name!r:.80} cannot be {kind}: rows of {tensor.shape[0]}"
        raise Invalid("invalid.gguf", text)
    return Tensor(tensor.name, kind, tensor.shape, 0, tensor.elements // block * size)


def write(
    path: Path,
    entries: Mapping[str, bytes],
    tensors: Sequence[Tensor],
    data: Callable[[Tensor], Data],
) -> Header:
    """Write a whole file and return its header as read back.

    ``data`` is asked for each tensor's bytes in turn. Offsets are made here. Whatever fails
    leaves no file.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            _write_head(file, entries, tensors)
            for tensor in tensors:
                written = 0
                for piece in data(tensor):
                    written += file.write(piece)
                if written != tensor.bytes:
                    text = f"{tensor.name} gave {written} bytes, not {tensor.bytes}"
                    raise Broken("broken.compression", text)
                file.write(bytes(-written % ALIGNMENT))
            file.flush()
            os.fsync(file.fileno())
        header = read_header(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return header


def _write_head(file: BinaryIO, entries: Mapping[str, bytes], tensors: Sequence[Tensor]) -> None:
    kept = {key: value for key, value in entries.items() if key != "general.alignment"}
    file.write(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(kept)))
    for value in kept.values():
        file.write(value)
    offset = 0
    for tensor in tensors:
        name = tensor.name.encode()
        file.write(struct.pack("<Q", len(name)) + name + struct.pack("<I", len(tensor.shape)))
        file.write(struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape))
        file.write(struct.pack("<IQ", _NUMBERS[tensor.type], offset))
        offset += -(-tensor.bytes // ALIGNMENT) * ALIGNMENT
    file.write(bytes(-file.tell() % ALIGNMENT))


def _after(start: bytes, at: int) -> int:
    """Return where the value ends whose type stands at ``at``."""
    kind = struct.unpack_from("<I", start, at)[0]
    at += 4
    if kind == _STRING:
        return int(at + 8 + struct.unpack_from("<Q", start, at)[0])
    if kind != _ARRAY:
        return int(at + _WIDTHS[kind])
    inner, count = struct.unpack_from("<IQ", start, at)
    at += 12
    if inner != _STRING:
        return int(at + count * _WIDTHS[inner])
    for _ in range(count):
        at += 8 + struct.unpack_from("<Q", start, at)[0]
    return at
