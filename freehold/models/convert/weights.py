"""The tensors of a checkpoint: where they lie, and their numbers, a bounded piece at a time."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from freehold.errors import Invalid
from freehold.models.safetensors import read_header

PIECE = 8 * 1024 * 1024
"""Bytes of a tensor that are read at once, or one block of rows when that is more."""
FLOATS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}

Numbers = npt.NDArray[np.float32]


class Stored(msgspec.Struct, frozen=True):
    """One tensor as it lies in a file. ``shape`` is outermost first, ``offset`` from the start."""

    name: str
    type: str
    shape: tuple[int, ...]
    path: Path
    offset: int

    @property
    def rows(self) -> int:
        """How many rows it has; a vector is one row."""
        return self.shape[0] if len(self.shape) > 1 else 1

    @property
    def width(self) -> int:
        """How many numbers a row has."""
        product = 1
        for size in self.shape[1:] if len(self.shape) > 1 else self.shape:
            product *= size
        return product


def stored(files: Mapping[str, Path]) -> dict[str, Stored]:
    """Return the tensors of safetensors files, by name, in the order in which they lie.

    ``files`` maps the names of files to where they are; ``Invalid`` when a header lies, or two
    files hold the same tensor.
    """
    found: dict[str, Stored] = {}
    for file, path in sorted(files.items()):
        header = read_header(path)
        for tensor in header.tensors:
            if tensor.name in found:
                raise _invalid(f"the tensor {tensor.name!r:.80} is in two files, also in {file}")
            at = header.data_offset + tensor.begin
            found[tensor.name] = Stored(tensor.name, tensor.dtype, tensor.shape, path, at)
    return found


def pieces(tensor: Stored, block: int = 1) -> Iterator[npt.NDArray[Any]]:
    """Yield a tensor's rows as they are stored, in pieces of whole blocks of ``block`` rows.

    bfloat16 come as unsigned integers. ``Invalid`` when a number is none (NaN) or infinite: no
    sound model has such weights.
    """
    kind = np.dtype(FLOATS[tensor.type])
    step = max(1, PIECE // max(1, tensor.width * kind.itemsize * block)) * block
    descriptor = os.open(tensor.path, os.O_RDONLY)
    try:
        for start in range(0, tensor.rows, step):
            count = min(step, tensor.rows - start)
            size = count * tensor.width * kind.itemsize
            data = _read(descriptor, size, tensor.offset + start * tensor.width * kind.itemsize)
            piece = np.frombuffer(data, kind).reshape(count, tensor.width)
            if not _are_finite(piece):
                raise _invalid(f"the tensor {tensor.name!r:.80} holds numbers that are none")
            yield piece
    finally:
        os.close(descriptor)


def _are_finite(numbers: npt.NDArray[Any]) -> bool:
    if numbers.dtype == np.uint16:  # bfloat16 is none or infinite where all of 8 bits are set
        return not ((numbers & np.uint16(0x7F80)) == np.uint16(0x7F80)).any()
    return bool(np.isfinite(numbers).all())


def widen(numbers: npt.NDArray[Any]) -> Numbers:
    """Return 16 or 32-bit floats as 32-bit ones; unsigned integers are bfloat16."""
    if numbers.dtype == np.uint16:
        return (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers.astype(np.float32, copy=False)


def narrow(numbers: Numbers, kind: str) -> npt.NDArray[Any]:
    """Return 32-bit floats as F32, F16 or BF16 (as its bits), rounded to the nearest.

    ``Invalid`` when a number is over what the type can hold.
    """
    if kind == "F32":
        return numbers
    if kind == "F16":
        with np.errstate(over="ignore"):
            half = numbers.astype(np.float16)
        if not np.isfinite(half).all():
            raise _invalid("it has weights over 65504, the most that F16 holds: take bf16 or f32")
        return half
    bits = np.ascontiguousarray(numbers).view(np.uint32)
    rounded = (bits + (np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1)))) >> 16
    return rounded.astype(np.uint16)


def _read(descriptor: int, size: int, offset: int) -> bytearray:
    data = bytearray(size)
    view, done = memoryview(data), 0
    while done < size:
        count = os.preadv(descriptor, [view[done:]], offset + done)
        if count <= 0:
            raise _invalid("a file of weights ends before its header says")
        done += count
    return data


def _invalid(text: str) -> Invalid:
    return Invalid("invalid.checkpoint", f"cannot convert this model: {text}")
