"""Read a safetensors file's header, and an index of shards, strictly.

A file is the length of its header (8 bytes, little-endian), the header (JSON: a name to dtype,
shape and place), and the data. Every byte of the data belongs to exactly one tensor, in order and
without a gap: nothing can hide between, behind or before them. Reads the header only.
"""

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from freehold.errors import Invalid
from freehold.models import strict_json

LONGEST_HEADER = 16 * 1024 * 1024
LONGEST_NAME = 512
MOST_TENSORS = 200_000
MOST_DIMENSIONS = 16
MOST_SHARDS = 2000

DTYPES = MappingProxyType(
    {
        "BOOL": 8,
        "U8": 8,
        "I8": 8,
        "F8_E5M2": 8,
        "F8_E4M3": 8,
        "F8_E8M0": 8,
        "I16": 16,
        "U16": 16,
        "F16": 16,
        "BF16": 16,
        "I32": 32,
        "U32": 32,
        "F32": 32,
        "I64": 64,
        "U64": 64,
        "F64": 64,
        "C64": 64,
        "F6_E2M3": 6,
        "F6_E3M2": 6,
        "F4": 4,
    }
)
"""Every dtype of the format to its bits an element."""


class Tensor(msgspec.Struct, frozen=True):
    """One tensor. ``shape`` is outermost first; ``begin`` counts bytes from the data section."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    bytes: int

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """All that a safetensors file says about itself, its tensors in the order of their bytes."""

    metadata: dict[str, str]
    tensors: tuple[Tensor, ...]
    data_offset: int
    file_bytes: int


def read_header(path: Path) -> Header:
    """Read and check a file's header; ``Invalid`` when it is not a sound safetensors file."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or size < 10:
            raise _invalid(f"the file is truncated: it has {size} bytes")
        if length < 2 or length > min(LONGEST_HEADER, size - 8):
            raise _invalid(
                f"its header would have {length} bytes: the file has {size}, and at most "
                f"{LONGEST_HEADER >> 20} MiB are read"
            )
        text = file.read(length)
    return parse_header(text, size)


def parse_header(text: bytes, file_bytes: int) -> Header:
    """Return the header whose JSON is ``text``, held against the size of its file."""
    if text[:1] != b"{":
        raise _invalid("its header is no JSON object")
    found = strict_json.decode(text, "its header", LONGEST_HEADER)
    metadata = found.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _invalid("its __metadata__ holds something that is no text")
    if len(found) > MOST_TENSORS:
        raise _invalid(f"it has {len(found)} tensors, over {MOST_TENSORS}")
    tensors = sorted(
        (_tensor(name, entry) for name, entry in found.items()),
        key=lambda tensor: (tensor.begin, tensor.bytes),
    )
    space = file_bytes - 8 - len(text)
    _check_cover(tensors, space)
    return Header(
        metadata=metadata,
        tensors=tuple(tensors),
        data_offset=8 + len(text),
        file_bytes=file_bytes,
    )


def read_index(data: bytes) -> dict[str, str]:
    """Return the tensors of an index of shards, each with the name of its file."""
    found = strict_json.decode(data, "its index")
    weights = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(weights, dict) or not weights:
        raise _invalid("its index has no weight_map")
    for tensor, shard in weights.items():
        if not isinstance(shard, str) or not shard.endswith(".safetensors") or "/" in shard:
            raise _invalid(f"its index has {tensor!r:.80} in {shard!r:.80}, which is no shard")
    if len(set(weights.values())) > MOST_SHARDS:
        raise _invalid(f"its index names over {MOST_SHARDS} files")
    return weights


def check_shards(index: Mapping[str, str], shards: Mapping[str, Header]) -> None:
    """Refuse shards that are not just what their index says: no tensor more, none twice."""
    if missing := sorted(set(index.values()) - set(shards)):
        raise _invalid(f"its index names {missing[0]!r:.100}, which is not there")
    if strange := sorted(set(shards) - set(index.values())):
        raise _invalid(f"its index does not name {strange[0]!r:.100}")
    held = [(tensor.name, name) for name, header in shards.items() for tensor in header.tensors]
    if len(dict(held)) < len(held):
        double = Counter(name for name, _ in held).most_common(1)[0][0]
        raise _invalid(f"two of its shards hold {double!r:.100}")
    if wrong := sorted(set(held) ^ set(index.items())):
        raise _invalid(f"its index and its shards differ about {wrong[0][0]!r:.100}")


def _tensor(name: str, entry: Any) -> Tensor:
    said = f"the tensor {name!r:.80}"
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise _invalid(f"{said} has no name that could be one")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _invalid(f"{said} is not described by dtype, shape and data_offsets alone")
    dtype, shape, place = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise _invalid(f"{said} has the unknown dtype {dtype!r:.40}")
    if not _counts(shape) or len(shape) > MOST_DIMENSIONS:
        raise _invalid(f"{said} has the impossible shape {shape!r:.80}")
    if not _counts(place) or len(place) != 2 or place[1] < place[0]:
        raise _invalid(f"{said} lies at {place!r:.80}, which is no place")
    tensor = Tensor(name, dtype, tuple(shape), place[0], place[1] - place[0])
    bits = tensor.elements * DTYPES[dtype]
    if bits % 8 or bits // 8 != tensor.bytes:
        raise _invalid(f"{said} has {tensor.bytes} bytes; its shape and dtype take {bits / 8:g}")
    return tensor


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(each, int) and not isinstance(each, bool) and 0 <= each < 1 << 53
        for each in value
    )


def _check_cover(tensors: Iterable[Tensor], space: int) -> None:
    """Refuse gaps, overlaps and tails: the tensors are the data, byte for byte."""
    at = 0
    for tensor in tensors:
        if tensor.begin != at:
            what = "overlaps the one before" if tensor.begin < at else "leaves a gap before it"
            raise _invalid(f"the tensor {tensor.name!r:.80} at {tensor.begin} {what}")
        at += tensor.bytes
    if at > space:
        raise _invalid(f"the file is truncated: its tensors take {at} bytes and {space} are there")
    if at < space:
        raise _invalid(f"{space - at} bytes at its end belong to no tensor")


def _invalid(text: str) -> Invalid:
    return Invalid("invalid.safetensors", f"cannot use this model file: {text}")
