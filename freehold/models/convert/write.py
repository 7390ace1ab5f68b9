"""Write a planned GGUF file, tensor by tensor, with a few pieces of it in memory."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFWriter

from freehold.models.convert.plan import Part, Plan
from freehold.models.convert.recipes import Value
from freehold.models.convert.weights import narrow, pieces, widen
from freehold.models.source import Progress


def write(plan: Plan, target: Path, progress: Progress) -> None:
    """Write the file and have it on disk. Half a file may be left by a kill: use a scratch path."""
    writer = GGUFWriter(None, plan.arch)
    for key, value in plan.values.items():
        _put(writer, key, value)
    if plan.special is not None:
        plan.special.add_to_gguf(writer, quiet=True)
    for part in plan.parts:
        kind = GGMLQuantizationType[part.kind]
        writer.add_tensor_info(part.name, part.shape, np.dtype(np.float32), part.bytes, kind)
    total, done = sum(part.bytes for part in plan.parts), 0
    try:
        writer.write_header_to_file(target)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        assert writer.fout is not None
        file = writer.fout[0]
        writer.write_padding(file, file.tell())
        for part in plan.parts:
            for piece in _pieces(part):
                file.write(piece.data)
                done += piece.nbytes
                progress("convert", done, total)
            writer.write_padding(file, part.bytes)
        file.flush()
        os.fsync(file.fileno())
    finally:
        writer.close()


def turn(rows: npt.NDArray[Any], head: int) -> npt.NDArray[Any]:
    """Return the rows of heads in llama.cpp's order: pairs to be turned lie beside each other.

    Checkpoints have the first halves of all pairs of a head, then the second ones.
    """
    inner = 1 if rows.shape[0] == 1 else rows.shape[1]
    halves = rows.reshape(-1, 2, head // 2, inner)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)


def _pieces(part: Part) -> Iterator[npt.NDArray[Any]]:
    if part.source is None:
        yield np.array(part.values, dtype=np.float32)
        return
    for piece in pieces(part.source, part.head or 1):
        numbers = turn(piece, part.head) if part.head else piece
        if part.shift or part.kind != part.source.type:
            numbers = narrow(widen(numbers) + np.float32(part.shift), part.kind)
        yield np.ascontiguousarray(numbers)


def _put(writer: GGUFWriter, key: str, value: Value) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
