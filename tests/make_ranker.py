"""Make a small model that ranks: a random BERT, converted, with a head that scores."""

import random
import struct
from collections.abc import Iterator
from pathlib import Path

from freehold.models.compress.weights import Weights
from freehold.models.convert.plan import plan
from freehold.models.convert.write import write as convert
from freehold.models.gguf import Tensor
from freehold.models.gguf_write import entry, metadata_bytes, write
from tests.make_checkpoint import HIDDEN, encoder


def ranker(folder: Path) -> Path:
    """Write it and return its path."""
    plain, target = folder / "plain.gguf", folder / "ranks.gguf"
    convert(plan(encoder(5).save(folder / "encoder"), "f32", "ranks"), plain, lambda *_: None)
    held = Weights(plain)
    entries = metadata_bytes(plain, held.header)
    entries["bert.pooling_type"] = entry("bert.pooling_type", 4)
    head = [_tensor("cls.weight", HIDDEN, HIDDEN), _tensor("cls.bias", HIDDEN),
            _tensor("cls.output.weight", HIDDEN, 1), _tensor("cls.output.bias", 1)]  # fmt: skip
    draw = random.Random(5)

    def data(tensor: Tensor) -> Iterator[bytes | memoryview]:
        if tensor.name in held.tensors:
            yield from held.raw(held.tensors[tensor.name])
        else:
            values = [draw.gauss(0, 0.3) for _ in range(tensor.elements)]
            yield struct.pack(f"<{len(values)}f", *values)

    write(target, entries, [*held.header.tensors, *head], data)
    return target


def _tensor(name: str, *shape: int) -> Tensor:
    elements = 1
    for size in shape:
        elements *= size
    return Tensor(name, "F32", shape, 0, elements * 4)
