"""Files that are written are read back as they were meant, or are not there."""

import os
import struct
from pathlib import Path

import pytest

from freehold.errors import Broken, Invalid
from freehold.models.gguf import Tensor, read_header
from freehold.models.gguf_write import entry, metadata_bytes, retyped, write
from tests.make_gguf import gguf


def test_metadata_goes_over_byte_for_byte(tmp_path: Path, weights: Path) -> None:
    header = read_header(weights)
    entries = metadata_bytes(weights, header)
    assert set(entries) == set(header.metadata) | set(header.arrays)
    small = Tensor("one", "F32", (32,), 0, 128)
    made = write(tmp_path / "m.gguf", entries, [small], lambda _: [b"x" * 128])
    kept = {k: v for k, v in header.metadata.items() if k != "general.alignment"}
    assert made.metadata == kept
    assert made.arrays == header.arrays


def test_tensors_lie_on_the_grid_in_order(tmp_path: Path) -> None:
    source = tmp_path / "s.gguf"
    source.write_bytes(gguf())
    entries = metadata_bytes(source, read_header(source))
    wanted = [Tensor("a", "F32", (3,), 0, 12), Tensor("b", "Q8_0", (32, 2), 0, 68)]
    data = {"a": struct.pack("<3f", 1, 2, 3), "b": os.urandom(68)}
    made = write(tmp_path / "m.gguf", entries, wanted, lambda t: [data[t.name]])
    assert [t.offset for t in made.tensors] == [0, 32]
    whole = (tmp_path / "m.gguf").read_bytes()
    assert whole[made.data_offset : made.data_offset + 12] == data["a"]
    assert whole[made.data_offset + 32 : made.data_offset + 100] == data["b"]


def test_what_fails_midway_leaves_no_file(tmp_path: Path) -> None:
    target = tmp_path / "m.gguf"
    wanted = [Tensor("a", "F32", (8,), 0, 32), Tensor("b", "F32", (8,), 0, 32)]

    def fails(tensor: Tensor) -> list[bytes]:
        if tensor.name == "b":
            raise OSError(28, "No space left on device")
        return [b"x" * 32]

    with pytest.raises(OSError, match="No space"):
        write(target, {}, wanted, fails)
    with pytest.raises(Broken):
        write(target, {}, wanted, lambda _: [b"short"])
    assert list(tmp_path.iterdir()) == []


def test_entries_are_what_a_reader_reads(tmp_path: Path) -> None:
    values = {"a": 7, "b": "text", "c": 0.5, "d": True}
    entries = {key: entry(key, value) for key, value in values.items()}
    made = write(
        tmp_path / "m.gguf", entries, [Tensor("t", "F32", (8,), 0, 32)], lambda _: [bytes(32)]
    )
    assert made.metadata == values


def test_a_type_that_does_not_fit_is_refused() -> None:
    with pytest.raises(Invalid):
        retyped(Tensor("a", "F16", (96, 4), 0, 768), "Q4_K")
    assert retyped(Tensor("a", "F16", (256, 4), 0, 2048), "Q4_K").bytes == 4 * 144
