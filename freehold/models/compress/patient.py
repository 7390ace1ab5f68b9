"""A loaded model whose weights are made coarse in place, to see what that costs.

A tensor is quantised, read back as floats and written over the one in memory as the type it had;
afterwards the file gives it back. In children only.
"""

import ctypes as c
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from freehold.errors import Unavailable
from freehold.models import ggml
from freehold.models.compress import divergence
from freehold.models.compress.divergence import Scores
from freehold.models.compress.importance import BLOCK, places
from freehold.models.compress.weights import Importance, Weights, pieces_of
from freehold.models.gguf import Tensor
from freehold.models.llama import Context, Model, Readers, readers

INPUTS = MappingProxyType({32: "inputs by 32", 256: "inputs by 256"})
"""What the error is called that engines make of inputs, by columns that are rounded together."""
ROUNDED = 127**2 * 12
"""A largest value squared over this is the mean square of what rounding changes."""
FIRST = 32
"""Positions of a text that are not scored: they have seen too little."""


class Patient:
    """A model and its file. Eight bits a weight are enough where a probe takes four: they run
    faster than sixteen, and what the probe does is held against the model before it."""

    def __init__(
        self,
        weights: Weights,
        threads: ggml.Threads,
        names: Sequence[str],
        length: int,
        *,
        embeds: bool = False,
    ) -> None:
        self.weights, self.threads = weights, threads
        self.model = Model(weights.path, writable=True)
        wanted = {name: weights.tensors[name].shape[0] for name in names}
        self._places = places(self.model, wanted, 1, embeds=embeds)
        self.readers = readers(self.model, length, threads.count, embeds=embeds)

    def reachable(self, name: str) -> bool:
        """Say whether the weight was seen at work, so that it can be made coarse."""
        return name in self._places

    def coarsen(self, kinds: Mapping[str, str], importance: Importance) -> float:
        """Replace tensors by what is left of them as other types; return the weighted error."""
        for name in kinds:
            if name not in self._places:
                raise Unavailable("unavailable.compression", f"{name} is not where it was expected")
        pieces = [
            (self.weights.tensors[name], kind, piece)
            for name, kind in kinds.items()
            for piece in pieces_of(self.weights.tensors[name])
        ]

        def make(piece: tuple[Tensor, str, tuple[int, int]]) -> float:
            tensor, kind, (first, rows) = piece
            floats = self.weights.floats(tensor, first, rows)
            made, error = coarse(floats, kind, rows, tensor.shape[0], importance.get(tensor.name))
            self._put(tensor, first, made, rows)
            return error

        return float(sum(self.threads.each(make, pieces)))

    def restore(self, names: Sequence[str]) -> None:
        """Give tensors back as they were."""
        for name in names:
            tensor = self.weights.tensors[name]
            for place in self._places.get(name, ()):
                c.memmove(place, self.weights.address(tensor), tensor.bytes)

    def judge(self, texts: Sequence[Sequence[int]], kept: int, first: int = FIRST) -> list[Scores]:
        """Hold the model as it is now against predictions that lie at an address."""
        return judge(self.readers, texts, kept, first)

    def close(self) -> None:
        """Give the memory back."""
        self.readers.close()
        self.model.close()

    def _put(self, tensor: Tensor, first: int, floats: object, rows: int) -> None:
        cols = tensor.shape[0]
        offset, count = first * ggml.row_bytes(tensor.type, cols), rows * cols
        for place in self._places[tensor.name]:
            if tensor.type == "F32":
                c.memmove(place + offset, floats, count * 4)  # type: ignore[arg-type]
            elif tensor.type == "F16":
                ggml.library().ggml_fp32_to_fp16_row(floats, place + offset, count)
            elif tensor.type == "BF16":
                ggml.library().ggml_fp32_to_bf16_row(floats, place + offset, count)
            else:
                ggml.from_floats(tensor.type, floats, place + offset, rows, cols)


def coarse(
    floats: object, kind: str, rows: int, cols: int, weights: object
) -> tuple[object, float]:
    """Return floats as they are after being stored as ``kind``, and the weighted square error."""
    data = bytearray(rows * ggml.row_bytes(kind, cols))
    ggml.from_floats(kind, floats, ggml.addressable(data), rows, cols, weights)
    made = (c.c_float * (rows * cols))()
    ggml.to_floats(kind, ggml.addressable(data), rows * cols, made)
    with ggml.graph(3 * rows * cols * 4 + 64 * rows + 16 * cols) as g:
        before = g.tensor("F32", cols, rows, c.addressof(floats))  # type: ignore[arg-type]
        after = g.tensor("F32", cols, rows, c.addressof(made))
        squares = g.sqr(g.sub(before, after))
        if weights is not None:
            squares = g.mul(squares, g.tensor("F32", cols, 1, c.addressof(weights)))  # type: ignore[arg-type]
        total = g.sum_rows(squares)
        g.run(total)
        return made, sum((c.c_float * rows).from_address(total.contents.data))


def rounding(floats: object, rows: int, cols: int, peaks: Sequence[float]) -> dict[str, float]:
    """Return the square error that rounding its inputs makes in what a matrix gives, by ``INPUTS``.

    ``peaks`` are mean squares of the largest input of each ``BLOCK`` of columns.
    """
    with ggml.graph(3 * rows * cols * 4 + 16 * cols) as g:
        squares = g.sqr(g.tensor("F32", cols, rows, c.addressof(floats)))  # type: ignore[arg-type]
        total = g.sum_rows(g.cont(g.transpose(squares)))
        g.run(total)
        columns = list((c.c_float * cols).from_address(total.contents.data))
    found = {}
    for width, name in INPUTS.items():
        if cols % width == 0:
            step = width // BLOCK
            found[name] = (
                sum(
                    sum(columns[at * width : (at + 1) * width])
                    * max(peaks[at * step : (at + 1) * step])
                    for at in range(cols // width)
                )
                / ROUNDED
            )
    return found


def judge(
    readers: Readers, texts: Sequence[Sequence[int]], kept: int, first: int = FIRST
) -> list[Scores]:
    """Return a model's scores on texts, one each, against predictions kept at an address."""
    width = readers.model.tokens

    def read(context: Context, item: tuple[Sequence[int], int]) -> Scores:
        text, place = item
        at = context.run(text, first)
        return divergence.compare(at, place, len(text) - first, width, text[first + 1 :])

    return readers.each(read, _placed(texts, kept, width, first))


def remember(
    readers: Readers, texts: Sequence[Sequence[int]], target: int, first: int = FIRST
) -> None:
    """Write the predictions of a reference for ``judge``: two bytes a position and token."""
    width = readers.model.tokens

    def read(context: Context, item: tuple[Sequence[int], int]) -> None:
        text, place = item
        divergence.keep(context.run(text, first), len(text) - first, width, place)

    readers.each(read, _placed(texts, target, width, first))


def _placed(
    texts: Sequence[Sequence[int]], at: int, width: int, first: int
) -> list[tuple[Sequence[int], int]]:
    """Return texts with the address of their predictions."""
    found = []
    for text in texts:
        found.append((text, at))
        at += (len(text) - first) * width * 2
    return found
