"""Files that stand in for a model while it is measured."""

from collections.abc import Callable, Iterator
from pathlib import Path

from freehold.models import ggml
from freehold.models.compress import kinds
from freehold.models.compress.weights import Weights, rewrite, rows_of
from freehold.models.gguf import Tensor
from freehold.models.gguf_write import metadata_bytes, write

STAND_IN = "Q8_0"
"""What the model is measured as: next to lossless, and the type that runs fastest here."""

TIED = 0.02
"""Relative square difference up to which two matrices are one, stored twice."""


def is_tied(weights: Weights) -> bool:
    """Say whether the embedding of tokens and the output are one matrix, stored twice."""
    a, b = (weights.tensors.get(name) for name in ("token_embd.weight", "output.weight"))
    if a is None or b is None or a.shape != b.shape:
        return False
    difference = total = 0.0
    for row in kinds.spread(rows_of(a), 64):
        x, y = weights.floats(a, row, 1), weights.floats(b, row, 1)
        difference += sum((p - q) ** 2 for p, q in zip(x, y, strict=True))
        total += sum(q * q for q in y)
    return difference < TIED * total


def merge(weights: Weights, path: Path) -> None:
    """Write a file in which a matrix that was stored twice is stored once."""
    entries = metadata_bytes(weights.path, weights.header)
    # The output is what was stored with more care.
    better = weights.tensors["output.weight"]
    wanted = [
        Tensor(t.name, better.type, t.shape, 0, better.bytes)
        if t.name == "token_embd.weight" else t
        for t in weights.header.tensors if t.name != "output.weight"
    ]  # fmt: skip

    def data(tensor: Tensor) -> Iterator[memoryview]:
        name = "output.weight" if tensor.name == "token_embd.weight" else tensor.name
        return weights.raw(weights.tensors[name])

    write(path, entries, wanted, data)


def write_stand_in(
    weights: Weights, path: Path, threads: ggml.Threads, told: Callable[[float], None]
) -> None:
    """Write the model with every matrix as ``STAND_IN``; ``told`` hears a share from 0 to 1."""
    total = sum(tensor.elements for tensor in weights.header.tensors) * 34 / 32
    rewrite(
        weights.path, path,
        lambda t: STAND_IN if kinds.is_matrix(t) else t.type, threads,
        lambda done: told(min(1.0, done / total)),
    )  # fmt: skip
