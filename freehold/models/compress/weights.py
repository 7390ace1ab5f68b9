"""Tensors of a file as numbers, and back: by ggml, in pieces of bounded size. In children only."""

import ctypes as c
import mmap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from freehold.models import ggml
from freehold.models.gguf import Header, Tensor, read_header
from freehold.models.gguf_write import metadata_bytes, retyped, write

FULL = frozenset({"F32", "F16", "BF16"})
"""Types that nothing was taken away from."""
KEPT = frozenset({"F64", "I8", "I16", "I32", "I64"})
PIECES = 8
"""Pieces of a tensor, at least."""

Importance = Mapping[str, Any]
"""Tensor name to a ctypes array: for each column the mean square of what it is multiplied with."""


class Weights:
    """The tensors of one file, read where they lie."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header: Header = read_header(path)
        self.tensors = {tensor.name: tensor for tensor in self.header.tensors}
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self._start = ggml.addressable(self._map)

    def address(self, tensor: Tensor) -> int:
        """Return where the tensor lies in memory."""
        return self._start + self.header.data_offset + tensor.offset

    def raw(self, tensor: Tensor) -> Iterator[memoryview]:
        """Yield the tensor's bytes as they are."""
        start = self.header.data_offset + tensor.offset
        step = 8 * 1024 * 1024
        with memoryview(self._map) as view:
            for at in range(start, start + tensor.bytes, step):
                yield view[at : min(at + step, start + tensor.bytes)]

    def floats(self, tensor: Tensor, first: int, rows: int) -> Any:
        """Return ``rows`` rows as an array of floats."""
        cols = tensor.shape[0]
        found = (c.c_float * (rows * cols))()
        at = self.address(tensor) + first * ggml.row_bytes(tensor.type, cols)
        ggml.to_floats(tensor.type, at, rows * cols, found)
        return found

    def quantised(
        self, tensor: Tensor, kind: str, importance: Importance, threads: ggml.Threads
    ) -> Iterator[bytearray]:
        """Yield the tensor's bytes as another type, in order, several pieces at work at once."""
        cols = tensor.shape[0]
        weights = importance.get(tensor.name)
        ggml.library().ggml_quantize_init(ggml.TYPE_NUMBERS[kind])
        pieces = pieces_of(tensor)

        def make(piece: tuple[int, int]) -> bytearray:
            first, rows = piece
            floats = self.floats(tensor, first, rows)
            made = bytearray(rows * ggml.row_bytes(kind, cols))
            ggml.from_floats(kind, floats, ggml.addressable(made), rows, cols, weights)
            return made

        for at in range(0, len(pieces), PIECES):
            yield from threads.each(make, pieces[at : at + PIECES])

    def close(self) -> None:
        """Let go of the file."""
        # Arrays of ctypes that look into it keep it open until they are collected.
        del self._map


@contextmanager
def opened(path: Path) -> Iterator[Weights]:
    """Yield the tensors of a file."""
    found = Weights(path)
    try:
        yield found
    finally:
        found.close()


def rows_of(tensor: Tensor) -> int:
    """Return how many rows of ``shape[0]`` elements a tensor has."""
    return tensor.elements // tensor.shape[0]


def pieces_of(tensor: Tensor) -> list[tuple[int, int]]:
    """Return (first row, rows) of pieces that are small enough to hold as floats.

    There are several even of a small tensor, so that no thread waits long for another.
    """
    rows = rows_of(tensor)
    step = max(1, min(ggml.ROWS_AT_ONCE // tensor.shape[0], -(-rows // PIECES)))
    return [(first, min(step, rows - first)) for first in range(0, rows, step)]


def is_full(header: Header) -> bool:
    """Say whether no matrix of the file was quantised before."""
    return all(t.type in FULL | KEPT for t in header.tensors)


def full_type(tensor: Tensor) -> str:
    """Return what a tensor is in a file of full precision."""
    if tensor.type in FULL or tensor.type in KEPT:
        return tensor.type
    return "F16" if len(tensor.shape) > 1 else "F32"


def dequantise(source: Path, target: Path, threads: ggml.Threads, progress: Any) -> None:
    """Write a file with every quantised tensor as 16-bit floats: the reference to compare with."""
    rewrite(source, target, full_type, threads, progress)


def rewrite(
    source: Path,
    target: Path,
    kind: Callable[[Tensor], str],
    threads: ggml.Threads,
    progress: Any,
) -> None:
    """Write a file anew with each tensor as the type that ``kind`` says."""
    with opened(source) as weights:
        entries = metadata_bytes(source, weights.header)
        entries.pop("general.file_type", None)
        wanted = [retyped(tensor, kind(tensor)) for tensor in weights.header.tensors]
        written: list[int] = []

        def data(tensor: Tensor) -> Iterator[bytes | bytearray | memoryview]:
            before = weights.tensors[tensor.name]
            if before.type == tensor.type:
                yield from weights.raw(before)
            else:
                yield from weights.quantised(before, tensor.type, {}, threads)
            written.append(tensor.bytes)
            progress(sum(written))

        write(target, entries, wanted, data)
