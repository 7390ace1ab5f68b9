"""The GGUF reader: what it reads, and that nothing it is fed makes it do anything but say no."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freehold.errors import Invalid
from freehold.models.gguf import read_header
from freehold.models.manifest import describe, memory_needed
from tests.make_gguf import gguf, string, value

FIELDS = {"general.architecture": "llama", "llama.context_length": 128, "general.name": "tiny"}


def read(path: Path, data: bytes) -> object:
    path.write_bytes(data)
    return read_header(path)


def test_a_small_model(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf(FIELDS, [("a", [4, 2], 0, 0)]))
    header = read_header(path)
    assert header.metadata["general.name"] == "tiny"
    assert [(t.name, t.elements, t.bytes) for t in header.tensors] == [("a", 8, 32)]
    manifest = describe(header)
    assert (manifest.architecture, manifest.parameters, manifest.context) == ("llama", 8, 128)


def test_the_starter(weights: Path) -> None:
    manifest = describe(read_header(weights))
    assert (manifest.architecture, manifest.layers, manifest.kv_heads) == ("llama", 30, 3)
    assert manifest.quantisation == "Q4_1"
    assert manifest.task == "chat"
    assert manifest.tokenizer
    assert manifest.tokenizer.tokens == 49152
    small = memory_needed(manifest, 98362432, 1024, 1)
    assert 98362432 < small < memory_needed(manifest, 98362432, 8192, 4)


def test_a_model_that_scores_is_a_reranker(tmp_path: Path) -> None:
    for pooling, task in ((4, "rerank"), (1, "completion")):
        path = tmp_path / "m.gguf"
        path.write_bytes(gguf({**FIELDS, "llama.pooling_type": pooling}))
        assert describe(read_header(path)).task == task


BIG = 2**63
BAD = {
    "bytes of nobody in front": (
        gguf(tensors=[("a", [8], 0, 32)], data=bytes(64)),
        "belong to no tensor",
    ),
    "a gap": (gguf(tensors=[("a", [8], 0, 0), ("b", [8], 0, 64)], data=bytes(96)), "gap"),
    "a long name": (gguf(tensors=[("n" * 64, [8], 0, 0)]), "tensor 0"),
    "empty": (b"", "empty"),
    "other format": (b"PK\x03\x04" + b"\0" * 40, "not a GGUF"),
    "big-endian": (b"GGUF\x00\x00\x00\x03" + b"\0" * 40, "big-endian"),
    "old": (gguf(version=1), "version"),
    "future": (gguf(version=9), "version"),
    "only magic": (b"GGUF", "truncated"),
    "many tensors": (b"GGUF" + struct.pack("<IQQ", 3, BIG, 0), "tensor count"),
    "many keys": (b"GGUF" + struct.pack("<IQQ", 3, 0, BIG), "more than"),
    "endless key": (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, BIG) + b"x" * 99, ""),
    "endless string": (
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string("k") + struct.pack("<IQ", 8, BIG) + b"x",
        "k",
    ),
    "endless array": (
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string("k") + struct.pack("<IIQ", 9, 4, BIG),
        "k",
    ),
    "array of arrays": (
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string("k") + struct.pack("<IIQ", 9, 9, 1)
        + b"\0" * 40,
        "k",
    ),
    "unknown type": (
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string("k") + struct.pack("<I", 99) + b"\0" * 40,
        "99",
    ),
    "key twice": (
        b"GGUF" + struct.pack("<IQQ", 3, 1, 2) + (string("a") + value("b")) * 2 + b"\0" * 99,
        "twice",
    ),
    "not utf-8": (
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2) + b"\xff\xfe" + b"\0" * 40,
        "",
    ),
    "no data": (gguf(data=b""), "truncated"),
    "half the data": (gguf(data=b"\0" * 16), "truncated"),
    "tensor beyond": (gguf(tensors=[("a", [8], 0, 1 << 40)]), ""),
    "overlapping": (gguf(tensors=[("a", [8], 0, 0), ("b", [8], 0, 0)], data=b"\0" * 64), "overlap"),
    "same tensor twice": (
        gguf(tensors=[("a", [8], 0, 0), ("a", [8], 0, 32)], data=b"\0" * 64), "twice",
    ),
    "misaligned": (gguf(tensors=[("a", [8], 0, 3)], data=b"\0" * 64), "grid"),
    "overflowing dimensions": (gguf(tensors=[("a", [2**62, 2**62], 0, 0)]), ""),
    "zero dimension": (gguf(tensors=[("a", [0], 0, 0)]), ""),
    "many dimensions": (gguf(tensors=[("a", [1] * 9, 0, 0)]), "dimensions"),
    "unknown tensor type": (gguf(tensors=[("a", [8], 250, 0)]), "250"),
    "alignment of zero": (gguf({**FIELDS, "general.alignment": 0}), "alignment"),
    "alignment of three": (gguf({**FIELDS, "general.alignment": 3}), "alignment"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_lies_are_refused_with_the_place(tmp_path: Path, name: str) -> None:
    data, says = BAD[name]
    with pytest.raises(Invalid) as caught:
        read(tmp_path / "bad.gguf", data)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "tensors", "says"),
    [
        ({"general.name": "x"}, None, "no architecture"),
        ({"general.architecture": 7}, None, "no architecture"),
        ({"general.architecture": "llama"}, [], "no tensors"),
        ({"general.architecture": "x\n" * 30}, None, "is no architecture"),
        ({"general.architecture": "llama", "general.type": "adapter"}, None, "of the type None"),
        ({"general.architecture": "llama", "split.count": 3}, None, "one of several parts"),
    ],
)
def test_a_file_that_could_never_run(
    tmp_path: Path, fields: dict[str, object], tensors: list[object] | None, says: str
) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf(fields, tensors))  # type: ignore[arg-type]
    with pytest.raises(Invalid, match=says):
        describe(read_header(path))


def survives(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        describe(read_header(path))
    except Invalid as error:
        told = str(error)
    else:
        told = ""
    assert len(told) < 1000


RELAXED = settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SEED = gguf(
    {**FIELDS, "tokenizer.ggml.tokens": ["a", "b"], "general.base_model.count": 1},
    [("a", [8], 0, 0), ("b", [32], 2, 32)],
    b"\0" * 64,
)


@given(st.binary(max_size=300))
@RELAXED
def test_any_bytes(tmp_path: Path, data: bytes) -> None:
    survives(tmp_path / "f", data)
    survives(tmp_path / "f", b"GGUF\x03\0\0\0" + data)


@given(st.lists(st.tuples(st.integers(0, len(SEED) - 1), st.integers(0, 255)), max_size=8))
@RELAXED
def test_flipped_bytes(tmp_path: Path, flips: list[tuple[int, int]]) -> None:
    data = bytearray(SEED)
    for at, byte in flips:
        data[at] = byte
    survives(tmp_path / "f", bytes(data))


@given(st.integers(0, len(SEED)), st.integers(0, len(SEED) - 8), st.integers(0, 2**64 - 1))
@RELAXED
def test_cut_and_with_any_number_anywhere(tmp_path: Path, cut: int, at: int, number: int) -> None:
    survives(tmp_path / "f", SEED[:cut])
    data = bytearray(SEED)
    struct.pack_into("<Q", data, at, number)
    survives(tmp_path / "f", bytes(data))


def test_coverage_guided_fuzzing_finds_nothing(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="NO FUZZER for this platform")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "seed").write_bytes(SEED)
    runs = os.environ.get("FREEHOLD_FUZZ_RUNS", "20000")
    # Through a shell: a process begins with the peak of memory of the one that started it.
    ran = subprocess.run(
        ["sh", "-c", '"$0" "$@"; exit $?',
         sys.executable, "-m", "tests.fuzz_gguf", str(corpus), f"-runs={runs}", "-max_len=2048",
         f"-artifact_prefix={tmp_path}/", "-rss_limit_mb=600", "-timeout=10"],
        capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert f"Done {runs} runs" in ran.stderr


def test_texts_that_are_kept_take_little(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf({"general.architecture": "x", "a": "y" * (3 << 20)}))
    header = read_header(path)  # walked over, not kept
    assert header.arrays["a"].count == 1
    many = {f"key{number}": "y" * (1 << 20) for number in range(9)}
    path.write_bytes(gguf({"general.architecture": "x", **many}))
    with pytest.raises(Invalid, match="texts are over 8 MiB"):
        read_header(path)
    path.write_bytes(gguf({"general.architecture": "x", "a.template": "y" * (3 << 20)}))
    with pytest.raises(Invalid):
        read_header(path)


def test_a_tail_that_no_tensor_owns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf() + bytes(31))  # padding
    assert read_header(path).tensors
    path.write_bytes(gguf() + bytes(32))
    with pytest.raises(Invalid, match="32 bytes at its end belong to no tensor"):
        read_header(path)


@pytest.mark.parametrize(("tensors", "keys"), [(100_001, 0), (0, 10_001)])
def test_more_parts_than_any_model_has_are_not_read(
    tmp_path: Path, tensors: int, keys: int
) -> None:
    (tmp_path / "m").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, tensors, keys) + bytes(8_000_000))
    with pytest.raises(Invalid, match="more than the file holds"):
        read_header(tmp_path / "m")
