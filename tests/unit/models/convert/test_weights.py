"""Numbers: read in pieces, made wider and narrower as they should be."""

from pathlib import Path

import numpy as np
import pytest

from freehold.errors import Invalid
from freehold.models.convert import weights
from freehold.models.convert.sentencepiece import BPE, read_pieces
from freehold.models.convert.weights import narrow, pieces, stored, widen
from freehold.models.convert.write import turn
from tests.make_checkpoint import pieces as write_pieces
from tests.make_checkpoint import safetensors, spaced


def test_sixteen_bits_are_rounded_to_the_nearest_and_ties_to_even() -> None:
    exact = np.array([1.0, -2.5, 0.0, 65280.0], np.float32)
    assert (widen(narrow(exact, "BF16")) == exact).all()
    assert (widen(narrow(exact, "F16")) == exact).all()
    step = 2.0**-7  # of bfloat16, above 1
    between = np.array([1 + step * 0.5, 1 + step * 1.5, 1 + step * 0.51], np.float32)
    assert widen(narrow(between, "BF16")).tolist() == [1.0, 1 + 2 * step, 1 + step]


def test_what_a_type_cannot_hold_and_what_is_no_number_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="bf16 or f32"):
        narrow(np.array([70000.0], np.float32), "F16")
    for bad in (np.nan, np.inf):
        file = tmp_path / "model.safetensors"
        file.write_bytes(safetensors({"w": np.array([[1.0, bad]], np.float32)}))
        with pytest.raises(Invalid, match="none"):
            list(pieces(stored({"f": file})["w"]))


def test_pieces_are_whole_blocks_and_few_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "PIECE", 4096)
    matrix = np.arange(96 * 64, dtype=np.float32).reshape(96, 64)
    file = tmp_path / "model.safetensors"
    file.write_bytes(safetensors({"w": matrix}))
    found = list(pieces(stored({"f": file})["w"], 8))
    assert {len(piece) for piece in found} == {16}
    assert (np.concatenate(found) == matrix).all()


def test_pairs_that_are_turned_lie_beside_each_other() -> None:
    rows = np.arange(8, dtype=np.float32).reshape(8, 1)
    assert turn(rows, 4).ravel().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert turn(rows.reshape(1, 8), 4).ravel().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    data = safetensors({"w": np.ones((2, 2), np.float32)})
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(data)
    with pytest.raises(Invalid, match="two files"):
        stored({"a": tmp_path / "a", "b": tmp_path / "b"})


def test_pieces_of_sentencepiece_are_read_and_every_cut_is_noticed(tmp_path: Path) -> None:
    tokenizer = spaced(prefix=True)
    data = write_pieces(tokenizer, prefix=True)
    file = tmp_path / "tokenizer.model"
    file.write_bytes(data)
    found = read_pieces(file)
    assert (found.model, found.prefix) == (BPE, True)
    vocabulary = tokenizer["model"]["vocab"]
    assert [piece.text for piece in found.pieces] == sorted(vocabulary, key=vocabulary.__getitem__)
    kinds = [piece.kind for piece in found.pieces[:4]]
    assert kinds == [2, 3, 3, 6]
    for length in range(0, 400, 7):
        file.write_bytes(data[:length])
        try:
            cut = read_pieces(file)
        except Invalid:
            continue
        assert cut.pieces == found.pieces[: len(cut.pieces)]
