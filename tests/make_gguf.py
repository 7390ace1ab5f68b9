"""Make GGUF files for tests: tiny ones from nothing, and copies with another header."""

import struct
from pathlib import Path
from typing import Any

STRING, ARRAY, UINT32, FLOAT32 = 8, 9, 4, 6


def string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def value(item: Any) -> bytes:
    """Encode a value with its type."""
    if isinstance(item, str):
        return struct.pack("<I", STRING) + string(item)
    if isinstance(item, int):
        return struct.pack("<II", UINT32, item)
    if isinstance(item, float):
        return struct.pack("<If", FLOAT32, item)
    inner = b"".join(string(each) for each in item)
    return struct.pack("<IIQ", ARRAY, STRING, len(item)) + inner


def gguf(
    fields: dict[str, Any] | None = None,
    tensors: list[tuple[str, list[int], int, int]] | None = None,
    data: bytes | None = None,
    *,
    version: int = 3,
) -> bytes:
    """Return a GGUF file. A tensor is (name, dimensions, type, offset); type 0 is F32."""
    fields = {"general.architecture": "llama"} if fields is None else fields
    tensors = [("weight", [8], 0, 0)] if tensors is None else tensors
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(fields))
    for name, item in fields.items():
        head += string(name) + value(item)
    for name, dimensions, kind, offset in tensors:
        head += string(name) + struct.pack("<I", len(dimensions))
        head += struct.pack(f"<{len(dimensions)}Q", *dimensions) + struct.pack("<IQ", kind, offset)
    head += b"\0" * (-len(head) % 32)
    return head + (b"\0" * 32 if data is None else data)


def tweak(source: Path, target: Path, fields: dict[str, Any]) -> Path:
    """Copy a model with fields of its header set; its tensors stay as they are."""
    data = source.read_bytes()
    magic, version, tensors, count = struct.unpack_from("<4sIQQ", data)
    assert magic == b"GGUF"
    at, kept, found = 24, b"", 0
    for _ in range(count):
        start = at
        length = struct.unpack_from("<Q", data, at)[0]
        name = data[at + 8 : at + 8 + length].decode()
        at = _skip(data, at + 8 + length)
        if name in fields:
            found += 1
        else:
            kept += data[start:at]
    infos = at
    for _ in range(tensors):
        length = struct.unpack_from("<Q", data, at)[0]
        at += 8 + length
        dimensions = struct.unpack_from("<I", data, at)[0]
        at += 4 + 8 * dimensions + 4 + 8
    body = at + (-at % 32)
    head = struct.pack("<4sIQQ", magic, version, tensors, count - found + len(fields)) + kept
    head += b"".join(string(name) + value(text) for name, text in fields.items())
    head += data[infos:at]
    target.write_bytes(head + b"\0" * (-len(head) % 32) + data[body:])
    return target


def _skip(data: bytes, at: int) -> int:
    sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    kind = struct.unpack_from("<I", data, at)[0]
    at += 4
    if kind == STRING:
        return at + 8 + struct.unpack_from("<Q", data, at)[0]
    if kind != ARRAY:
        return at + sizes[kind]
    inner, length = struct.unpack_from("<IQ", data, at)
    at += 12
    if inner != STRING:
        return at + sizes[inner] * length
    for _ in range(length):
        at += 8 + struct.unpack_from("<Q", data, at)[0]
    return at
