"""The safetensors reader believes nothing."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.errors import Invalid
from freehold.models.safetensors import (
    DTYPES,
    LONGEST_HEADER,
    check_shards,
    parse_header,
    read_header,
    read_index,
)
from tests.make_safetensors import header, safetensors


def _write(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    return path


def _entry(dtype: str = "F32", shape: Any = (2,), place: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(place)}


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_read(tmp_path: Path, dtype: str) -> None:
    tensors = {"a": (dtype, [2, 4]), "empty": (dtype, [0]), "b": (dtype, [4])}
    found = read_header(_write(tmp_path, safetensors(tensors, {"format": "pt"})))
    assert {tensor.name for tensor in found.tensors} == set(tensors)
    assert [t.elements for t in found.tensors if t.name == "a"] == [8]
    assert found.metadata == {"format": "pt"}
    assert found.data_offset + sum(t.bytes for t in found.tensors) == found.file_bytes


def test_a_scalar_and_a_padded_header(tmp_path: Path) -> None:
    text = json.dumps({"s": _entry("F32", (), (0, 4))}).encode() + b"   "
    found = read_header(_write(tmp_path, struct.pack("<Q", len(text)) + text + bytes(4)))
    assert found.tensors[0].shape == ()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "truncated"),
        (b"\x08\0\0\0", "truncated"),
        (struct.pack("<Q", LONGEST_HEADER + 1) + b"{}" * 9_000_000, "at most 16 MiB"),
        (struct.pack("<Q", 1 << 63) + b"{}", "would have"),
        (struct.pack("<Q", 0) + b"{}", "would have 0"),
        (struct.pack("<Q", 2) + b"[]", "no JSON object"),
        (struct.pack("<Q", 2) + b" {", "no JSON object"),
        (struct.pack("<Q", 2) + b"{]", "not sound JSON"),
        (struct.pack("<Q", 4) + b'{"\xff"', "not UTF-8"),
        (header({"a": _entry()}, bytes(7)), "truncated: its tensors take 8"),
        (header({"a": _entry()}, bytes(8) + b"PK"), "2 bytes at its end belong to no tensor"),
        (header({}, b"hidden"), "6 bytes at its end"),
        (header({"a": _entry(place=(8, 16))}, bytes(16)), "leaves a gap"),
        (header({"a": _entry(), "b": _entry(place=(4, 12))}, bytes(12)), "overlaps"),
        (header({"a": _entry("F99")}, bytes(8)), "unknown dtype"),
        (header({"a": _entry(shape=(3,))}, bytes(8)), "its shape and dtype take 12"),
        (header({"a": _entry(shape=(-2,))}, bytes(8)), "impossible shape"),
        (header({"a": _entry(shape=(True, 2))}, bytes(8)), "impossible shape"),
        (header({"a": _entry(shape=(2.0,))}, bytes(8)), "impossible shape"),
        (header({"a": _entry(shape=(1 << 40, 1 << 40))}, bytes(8)), "its shape and dtype take"),
        (header({"a": _entry("F4", (1,), (0, 1))}, bytes(1)), "take 0.5"),
        (header({"a": _entry(place=(8, 0))}, bytes(8)), "no place"),
        (header({"a": _entry(place=(0, 8, 9))}, bytes(8)), "no place"),
        (header({"a": {**_entry(), "more": 1}}, bytes(8)), "alone"),
        (header({"a": 7}, bytes(8)), "alone"),
        (header({"": _entry()}, bytes(8)), "no name"),
        (header({"a\nb": _entry()}, bytes(8)), "no name"),
        (header({"__metadata__": {"a": 1}}), "no text"),
        (header({"__metadata__": "x"}), "no text"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        read_header(_write(tmp_path, data))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
         b'"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', "twice"),
        (b'{"__metadata__":{"x":"1","x":"2"}}', "twice"),
        (b'{"a":NaN}', "no number"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    ],
)  # fmt: skip
def test_headers_that_two_readers_read_differently(text: bytes, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        parse_header(text, 8 + len(text) + 1)


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(text: bytes) -> None:
    try:
        found = parse_header(text, 8 + len(text) + 16)
    except Invalid:
        return
    assert sum(tensor.bytes for tensor in found.tensors) == 16


def _shards(**held: list[str]) -> dict[str, Any]:
    return {
        f"{name}.safetensors": parse_header(*_split(safetensors({t: ("U8", [1]) for t in tensors})))
        for name, tensors in held.items()
    }


def _split(data: bytes) -> tuple[bytes, int]:
    length = int.from_bytes(data[:8], "little")
    return data[8 : 8 + length], len(data)


INDEX = {"x": "one.safetensors", "y": "two.safetensors"}


def test_an_index_and_its_shards() -> None:
    check_shards(INDEX, _shards(one=["x"], two=["y"]))
    assert read_index(json.dumps({"metadata": {}, "weight_map": INDEX}).encode()) == INDEX


@pytest.mark.parametrize(
    ("shards", "says"),
    [
        ({"one": ["x"]}, "names 'two.safetensors', which is not there"),
        ({"one": ["x"], "two": ["y"], "six": ["z"]}, "does not name 'six"),
        ({"one": ["x", "y"], "two": ["y"]}, "two of its shards hold 'y'"),
        ({"one": ["x"], "two": ["y", "z"]}, "differ about 'z'"),
        ({"one": ["y"], "two": ["x"]}, "differ about"),
    ],
)
def test_shards_that_are_not_what_their_index_says(shards: dict[str, Any], says: str) -> None:
    with pytest.raises(Invalid, match=says):
        check_shards(INDEX, _shards(**shards))


@pytest.mark.parametrize(
    "index",
    [[], {}, {"weight_map": {}}, {"weight_map": {"x": "../a.safetensors"}},
     {"weight_map": {"x": "a.bin"}}, {"weight_map": {"x": 1}}],
)  # fmt: skip
def test_an_index_that_is_none(index: Any) -> None:
    with pytest.raises(Invalid):
        read_index(json.dumps(index).encode())
