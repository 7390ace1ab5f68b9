"""Bytes first, names last; pickles of every protocol, and no text taken for one."""

import pickle
import zipfile
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.models.scan.kind import ends_as_zip, kind_of
from freehold.models.scan.opcodes import runs
from tests.make_gguf import gguf
from tests.make_safetensors import safetensors


@pytest.mark.parametrize(
    ("name", "head", "kind"),
    [
        ("model.gguf", gguf(), "gguf"),
        ("model.bin", gguf(), "gguf"),
        ("model.bin", safetensors(), "safetensors"),
        ("model.safetensors", b"\x80\x04.", "pickle"),
        ("config.json", b"PK\x03\x04", "archive"),
        ("config.json", b"{}", "json"),
        ("README.md", b"# hi", "text"),
        ("README.pt.md", b"# oi", "text"),
        ("LICENSE", b"MIT", "text"),
        ("LICENSE.Apache-2.0", b"x", "text"),
        ("model.pt", b"\0" * 9, "pickle"),
        ("model.pkl.txt", b"x", "pickle"),
        ("run.sh", b"echo", "program"),
        ("tool", b"#!/bin/sh", "program"),
        ("tool", b"\x7fELF", "program"),
        ("tool", b"MZ" + bytes(62), "program"),
        ("vocab.txt", b"MZ\nthe\n", "text"),
        ("x.tar", b"\0" * 300, "archive"),
        ("x", b"\0" * 257 + b"ustar", "archive"),
        ("x", b"\0" * 512 + b"\x89HDF\r\n\x1a\n", "graph"),
        ("model.onnx", b"\x08\x08", "onnx"),
        ("tokenizer.model", b"\n\x05", "sentencepiece"),
        ("chat_template.jinja", b"{{ x }}", "template"),
        ("w.npy", b"\x93NUMPY\x01", "numbers"),
        ("weights.dat", b"\1\2\3", "unknown"),
        ("pytorch_model.bin", b"\1\2\3", "unknown"),
    ],
)
def test_kinds(name: str, head: bytes, kind: str) -> None:
    assert kind_of(name, head)[0] == kind


def _zip(comment: bytes = b"") -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", "b")
        archive.comment = comment
    return file.getvalue()


@pytest.mark.parametrize("before", [b"", b"x" * 500, safetensors()])
@pytest.mark.parametrize("comment", [b"", b"a comment"])
@pytest.mark.parametrize("after", [b"", b"\0" * 40])
def test_a_zip_at_the_end_is_seen(before: bytes, comment: bytes, after: bytes) -> None:
    assert ends_as_zip(before + _zip(comment) + after)


def test_a_zip_whose_last_record_lies_is_seen() -> None:
    whole = _zip()
    at = whole.rindex(b"PK\x05\x06")
    long_comment = whole[:-2] + b"\xff\xff"
    assert ends_as_zip(b"x" + long_comment)  # Python's reader does not mind
    zip64 = b"PK\x06\x06" + bytes(52) + b"PK\x06\x07" + bytes(16)
    assert ends_as_zip(b"x" * 70_000 + zip64 + b"PK\x05\x06" + bytes(18))
    wrong_size = whole[: at + 12] + b"\1\0\0\0" + whole[at + 16 :]
    assert ends_as_zip(wrong_size)


@pytest.mark.parametrize(
    "data", [b"", b"PK\x05\x06", b"PK\x05\x06" + bytes(18), b"PK\x05\x06" * 100, bytes(70_000)]
)
def test_what_is_no_zip_is_not_one(data: bytes) -> None:
    assert not ends_as_zip(data)


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("touched",)


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_that_call_are_seen(protocol: int) -> None:
    assert runs(pickle.dumps(Evil(), protocol)) is not None
    assert runs(pickle.dumps([1], protocol) + pickle.dumps(Evil(), protocol)) is not None
    assert runs(pickle.dumps(Evil(), protocol)[:-1] + b"\xff" * 50) is not None


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_values_call_nothing(protocol: int) -> None:
    assert runs(pickle.dumps({"a": [1, 2.0, "x"]}, protocol)) is None


def test_a_pickle_without_end_is_seen() -> None:
    assert runs(b"(" + b"N0" * 99_999 + b"N(cos\nsystem\nS'id'\no.") is not None
    assert runs(b"N." * 300_000) is not None
    assert runs(b"B\xff\xff\xff\xffcos\nsystem\n)R.") is None  # longer than what is there


@pytest.mark.parametrize(
    "text",
    [b"", b"copyright\nconfig\n", b"(a)\n(b)\n", b"import os\nos.system('x')\n", b"# Title\n",
     b"cat\ndog\nR\n", b"{}\n", b"N.\nhello", b"I am a line\nR",
     b"cat\ndog\nNorth\n", b"cat\nhat\ndog\n", b"cat\nhat\nlord\n"],
)  # fmt: skip
def test_texts_are_no_pickles(text: bytes) -> None:
    assert runs(text) is None


@given(st.binary(max_size=300))
def test_no_bytes_stop_the_reading(data: bytes) -> None:
    found = runs(data)
    assert found is None or isinstance(found, str)
