"""A strict reader of GGUF headers, v2 and v3, little-endian.

Reads the header only, through one bounded buffer, and believes nothing: every count and length is
held against what is left of the file before anything is allocated. Whatever is wrong becomes
``Invalid`` with the place where it is wrong. Format: ggml's ``docs/gguf.md``.
"""

import hashlib
import math
import os
import struct
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import msgspec

from freehold.errors import Invalid

Scalar = int | float | bool | str

METADATA_BUDGET = 128 * 1024 * 1024
"""Bytes that metadata and tensor descriptions may take in the file."""
KEPT_BUDGET = 8 * 1024 * 1024
"""Bytes of texts that are kept: Python takes up to four times as much for them."""
LONGEST_KEY = 65535
LONGEST_NAME = 63
"""Of a tensor; the format's own limit, its end included, is 64."""
LONGEST_STRING = 2 * 1024 * 1024
MOST_TENSORS = 100_000
MOST_KEYS = 10_000
KEPT_ELEMENTS = 64
CHUNK = 1024 * 1024

_SCALARS = MappingProxyType(
    {
        0: ("uint8", "<B"), 1: ("int8", "<b"), 2: ("uint16", "<H"), 3: ("int16", "<h"),
        4: ("uint32", "<I"), 5: ("int32", "<i"), 6: ("float32", "<f"), 7: ("bool", "<B"),
        10: ("uint64", "<Q"), 11: ("int64", "<q"), 12: ("float64", "<d"),
    }
)  # fmt: skip
_STRING, _ARRAY = 8, 9

TENSOR_TYPES = MappingProxyType(
    {
        0: ("F32", 1, 4),
        1: ("F16", 1, 2),
        2: ("Q4_0", 32, 18),
        3: ("Q4_1", 32, 20),
        6: ("Q5_0", 32, 22),
        7: ("Q5_1", 32, 24),
        8: ("Q8_0", 32, 34),
        9: ("Q8_1", 32, 36),
        10: ("Q2_K", 256, 84),
        11: ("Q3_K", 256, 110),
        12: ("Q4_K", 256, 144),
        13: ("Q5_K", 256, 176),
        14: ("Q6_K", 256, 210),
        15: ("Q8_K", 256, 292),
        16: ("IQ2_XXS", 256, 66),
        17: ("IQ2_XS", 256, 74),
        18: ("IQ3_XXS", 256, 98),
        19: ("IQ1_S", 256, 50),
        20: ("IQ4_NL", 32, 18),
        21: ("IQ3_S", 256, 110),
        22: ("IQ2_S", 256, 82),
        23: ("IQ4_XS", 256, 136),
        24: ("I8", 1, 1),
        25: ("I16", 1, 2),
        26: ("I32", 1, 4),
        27: ("I64", 1, 8),
        28: ("F64", 1, 8),
        29: ("IQ1_M", 256, 56),
        30: ("BF16", 1, 2),
        34: ("TQ1_0", 256, 54),
        35: ("TQ2_0", 256, 66),
        39: ("MXFP4", 32, 17),
        40: ("NVFP4", 64, 36),
    }
)
"""Tensor type id to (name, elements a block, bytes a block); ids that were withdrawn are absent."""

_OTHERS = (
    (b"PK\x03\x04", "a zip archive (perhaps a PyTorch checkpoint)"),
    (b"\x80\x02", "a Python pickle, which is never read here"),
    (b"\x80\x04", "a Python pickle, which is never read here"),
    (b"version https://git-lfs", "a Git LFS pointer: fetch the file itself"),
    (b"<!DOCTYPE", "an HTML page: the download went wrong"),
    (b"<html", "an HTML page: the download went wrong"),
    (b"\x08\x07\x12", "an ONNX model"),
    (b"lmgg", "an old ggml file: convert it with a present llama.cpp"),
    (b"tjgg", "an old ggml file: convert it with a present llama.cpp"),
)


class ArraySummary(msgspec.Struct, frozen=True):
    """A long array that was walked over: element type, count, SHA-256 of its bytes."""

    type: str
    count: int
    sha256: str


class Tensor(msgspec.Struct, frozen=True):
    """One tensor. ``shape`` is innermost first; ``offset`` counts from the data section."""

    name: str
    type: str
    shape: tuple[int, ...]
    offset: int
    bytes: int

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """All a GGUF file says about itself, without its weights.

    ``metadata`` holds scalars and arrays of up to 64 elements; longer ones are in ``arrays``.
    """

    version: int
    metadata: dict[str, Scalar | list[Scalar]]
    arrays: dict[str, ArraySummary]
    tensors: tuple[Tensor, ...]
    data_offset: int
    file_bytes: int


def read_header(path: Path) -> Header:
    """Read and check a file's header; ``Invalid`` when it is not a sound GGUF file."""
    with path.open("rb", buffering=0) as file:
        return _Reader(file, os.fstat(file.fileno()).st_size).header()


class _Reader:
    """A cursor over the file. ``left`` is always the bytes between it and the file's end."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self._buffer = b""
        self._at = 0
        self._position = 0
        self._kept = 0

    def header(self) -> Header:
        self._magic()
        version = self._scalar("<I", "the version")
        if version not in (2, 3):
            swapped = int.from_bytes(int(version).to_bytes(4, "big"), "little")
            order = "is big-endian" if swapped in (2, 3) else f"has version {version}"
            raise _invalid(f"the file {order}: only little-endian GGUF 2 and 3 are read")
        tensor_count = self._count("the tensor count", MOST_TENSORS, 24)
        key_count = self._count("the key count", MOST_KEYS, 13)
        metadata, arrays = self._metadata(key_count)
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment not in {1 << n for n in range(3, 17)}:
            raise _invalid(f"general.alignment is {alignment!r:.40}: it must be a power of two")
        tensors = self._tensors(tensor_count, alignment)
        data_offset = -(-self._position // alignment) * alignment
        _check_layout(tensors, self._size - data_offset, alignment)
        return Header(
            version=int(version),
            metadata=metadata,
            arrays=arrays,
            tensors=tuple(tensors),
            data_offset=data_offset,
            file_bytes=self._size,
        )

    def _magic(self) -> None:
        start = self._peek(32)
        if start[:4] == b"GGUF":
            self._take(4, "the magic")
            return
        if not start:
            raise _invalid("the file is empty")
        known = next((what for magic, what in _OTHERS if start.startswith(magic)), None)
        if known is None and len(start) > 9 and start[8:9] == b"{":
            known = "a safetensors file: only GGUF can be run for now"
        raise _invalid(f"not a GGUF file; it looks like {known or 'nothing known'}")

    def _metadata(
        self, count: int
    ) -> tuple[dict[str, Scalar | list[Scalar]], dict[str, ArraySummary]]:
        metadata: dict[str, Scalar | list[Scalar]] = {}
        arrays: dict[str, ArraySummary] = {}
        for number in range(count):
            key = self._string(f"key {number}", LONGEST_KEY)
            if not key or key in metadata or key in arrays:
                raise _invalid(f"the key {key!r:.80} is empty or stands there twice")
            kind = int(self._scalar("<I", f"the type of {key!r:.80}"))
            if kind == _ARRAY:
                value = self._array(key)
                if isinstance(value, ArraySummary):
                    arrays[key] = value
                else:
                    metadata[key] = value
            elif kind == _STRING and "template" not in key and self._next_is_long(key):
                arrays[key] = ArraySummary("string", 1, self._skip_strings(1, key))
            else:
                metadata[key] = self._value(kind, key)
        return metadata, arrays

    def _next_is_long(self, key: str) -> bool:  # a whole tokenizer, as some converters leave it
        self._fill(8, key)
        length: int = struct.unpack_from("<Q", self._buffer, self._at)[0]
        return LONGEST_STRING < length <= self._left - 8

    def _value(self, kind: int, key: str) -> Scalar:
        if kind == _STRING:
            return self._string(key, LONGEST_STRING)
        if kind not in _SCALARS:
            raise _invalid(f"the key {key!r:.80} has the unknown type {kind}")
        name, layout = _SCALARS[kind]
        value = self._scalar(layout, key)
        if name == "bool":
            if value not in (0, 1):
                raise _invalid(f"the key {key!r:.80} is a boolean of value {value}")
            return bool(value)
        return value

    def _array(self, key: str) -> list[Scalar] | ArraySummary:
        kind = int(self._scalar("<I", key))
        if kind == _ARRAY:
            raise _invalid(f"the key {key!r:.80} nests arrays, which no model needs")
        if kind != _STRING and kind not in _SCALARS:
            raise _invalid(f"the key {key!r:.80} is an array of the unknown type {kind}")
        width = 8 if kind == _STRING else struct.calcsize(_SCALARS[kind][1])
        count = self._count(f"the length of {key!r:.80}", METADATA_BUDGET, width)
        if count <= KEPT_ELEMENTS:
            return [self._value(kind, key) for _ in range(count)]
        if kind == _STRING:
            return ArraySummary("string", count, self._skip_strings(count, key))
        digest = hashlib.sha256()
        left = count * width
        while left:
            piece = self._take(min(left, CHUNK), key)
            digest.update(piece)
            left -= len(piece)
        return ArraySummary(_SCALARS[kind][0], count, digest.hexdigest())

    def _skip_strings(self, count: int, key: str) -> str:
        """Walk over strings without making them: a vocabulary has hundreds of thousands."""
        digest = hashlib.sha256()
        length_at = struct.Struct("<Q").unpack_from
        while count:
            self._fill(8, key)
            buffer, start = self._buffer, self._at
            at, end = start, len(buffer)
            while count and at + 8 <= end:
                after = at + 8 + length_at(buffer, at)[0]
                if after > end:
                    break
                at = after
                count -= 1
            digest.update(memoryview(buffer)[start:at])
            self._advance(at - start)
            if count and at == start:
                digest.update(self._take(8 + self._string_length(key), key))
                count -= 1
        return digest.hexdigest()

    def _string_length(self, key: str) -> int:
        self._fill(8, key)
        length: int = struct.unpack_from("<Q", self._buffer, self._at)[0]
        if length > min(METADATA_BUDGET, self._left - 8):
            raise self._lies(f"a string of {key!r:.80}", length)
        return length

    def _tensors(self, count: int, alignment: int) -> list[Tensor]:
        tensors: list[Tensor] = []
        names: set[str] = set()
        for number in range(count):
            name = self._string(f"the name of tensor {number}", LONGEST_NAME)
            if not name or name in names:
                raise _invalid(f"the tensor {name!r:.80} has no name or stands there twice")
            names.add(name)
            tensors.append(self._tensor(name, alignment))
        return tensors

    def _tensor(self, name: str, alignment: int) -> Tensor:
        rank = int(self._scalar("<I", name))
        if not 1 <= rank <= 4:
            raise _invalid(f"the tensor {name!r:.80} has {rank} dimensions: 1 to 4 are possible")
        shape = tuple(int(self._scalar("<Q", name)) for _ in range(rank))
        kind = int(self._scalar("<I", name))
        offset = int(self._scalar("<Q", name))
        if kind not in TENSOR_TYPES:
            raise _invalid(f"the tensor {name!r:.80} has the unknown type {kind}")
        title, block, width = TENSOR_TYPES[kind]
        elements = 1
        for size in shape:
            elements *= size
        if elements == 0 or elements >= 1 << 62 or max(shape) >= 1 << 48:
            raise _invalid(f"the tensor {name!r:.80} has the impossible shape {shape}")
        if shape[0] % block:
            raise _invalid(f"the tensor {name!r:.80}: rows of {shape[0]} are no blocks of {title}")
        if offset % alignment:
            raise _invalid(f"the tensor {name!r:.80} lies at {offset}, off the {alignment} grid")
        return Tensor(name, title, shape, offset, elements // block * width)

    def _string(self, what: str, longest: int) -> str:
        length = int(self._scalar("<Q", what))
        if length > min(longest, self._left):
            raise self._lies(what, length)
        self._kept += length
        if self._kept > KEPT_BUDGET and longest > LONGEST_NAME:
            raise _invalid(f"its texts are over {KEPT_BUDGET >> 20} MiB long")
        data = self._take(length, what)
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise _invalid(f"{what!r:.80} is not valid UTF-8") from error

    def _count(self, what: str, most: int, width: int) -> int:
        count = int(self._scalar("<Q", what))
        if count > most or count * width > self._left:
            raise self._lies(what, count)
        return count

    def _scalar(self, layout: str, what: str) -> int | float:
        value: int | float = struct.unpack(layout, self._take(struct.calcsize(layout), what))[0]
        return value

    @property
    def _left(self) -> int:
        return self._size - self._position

    def _peek(self, count: int) -> bytes:
        self._buffer = self._file.read(CHUNK)
        return self._buffer[:count]

    def _take(self, count: int, what: str) -> bytes:
        self._fill(count, what)
        data = self._buffer[self._at : self._at + count]
        self._advance(count)
        return data

    def _advance(self, count: int) -> None:
        self._at += count
        self._position += count
        if self._position > METADATA_BUDGET:
            raise _invalid(f"the header is over {METADATA_BUDGET >> 20} MiB long")

    def _fill(self, count: int, what: str) -> None:
        have = len(self._buffer) - self._at
        if have >= count:
            return
        if count > self._left:
            raise _invalid(
                f"the file is truncated: it ends at byte {self._size}, within {what!r:.80}"
            )
        pieces = [self._buffer[self._at :]]
        while have < count:
            piece = self._file.read(max(CHUNK, count - have))
            if not piece:
                raise _invalid(f"the file shrank while it was read, within {what!r:.80}")
            pieces.append(piece)
            have += len(piece)
        self._buffer, self._at = b"".join(pieces), 0

    def _lies(self, what: str, count: int) -> Invalid:
        return _invalid(
            f"{what} is {count}, more than the file holds at byte {self._position} of {self._size}"
        )


def _check_layout(tensors: Iterable[Tensor], space: int, alignment: int) -> None:
    """Refuse overlaps, and gaps: bytes that no tensor owns could be anything."""
    ordered = sorted(tensors, key=lambda tensor: tensor.offset)
    if ordered and ordered[0].offset:
        raise _invalid("its data begins with bytes that belong to no tensor")
    for before, after in pairwise(ordered):
        if before.offset + before.bytes > after.offset:
            raise _invalid(f"the tensors {before.name!r:.60} and {after.name!r:.60} overlap")
        if after.offset - before.offset - before.bytes >= alignment:
            raise _invalid(f"between {before.name!r:.60} and {after.name!r:.60} there is a gap")
    end = ordered[-1].offset + ordered[-1].bytes if ordered else 0
    if ordered and space - end >= alignment:
        raise _invalid(f"{space - end} bytes at its end belong to no tensor")
    if ordered and end > space:
        last = ordered[-1]
        raise _invalid(
            f"the file is truncated: the tensor {last.name!r:.80} ends at byte "
            f"{last.offset + last.bytes} of a data section of {max(0, space)}"
        )


def _invalid(text: str) -> Invalid:
    return Invalid("invalid.gguf", f"cannot use this model file: {text}")
