"""ggml's arithmetic by ctypes, held against the same sums in Python."""

import ctypes as c
import math
import random
from pathlib import Path

import pytest

from freehold.errors import Unavailable
from freehold.models import ggml
from freehold.models.compress import divergence
from freehold.models.compress.importance import collect
from freehold.models.compress.patient import INPUTS, Patient, coarse, judge, remember, rounding
from freehold.models.compress.weights import Weights, dequantise, is_full, rewrite
from freehold.models.gguf import read_header
from freehold.models.llama import Model, readers
from tests.make_model import model


@pytest.fixture(scope="module")
def tiny(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model(weights, tmp_path_factory.mktemp("ggml") / "tiny.gguf")


def normal(count: int, seed: int = 1) -> "c.Array[c.c_float]":
    draw = random.Random(seed)
    return (c.c_float * count)(*(draw.gauss(0, 1) for _ in range(count)))


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ggml.library()
    ggml._check(found)
    monkeypatch.setattr(ggml, "MUL_MAT", 30)
    with pytest.raises(Unavailable) as caught:
        ggml._check(found)
    assert "requirements.lock" in caught.value.message


@pytest.mark.parametrize(("kind", "most"), [("Q8_0", 1e-4), ("Q6_K", 1e-3), ("Q4_K", 0.02)])
def test_what_is_stored_comes_back_nearly(kind: str, most: float) -> None:
    floats = normal(4 * 256)
    made, error = coarse(floats, kind, 4, 256, None)
    truth = sum((a - b) ** 2 for a, b in zip(floats, made, strict=True))  # type: ignore[call-overload]
    assert error == pytest.approx(truth, rel=1e-4)
    assert 0 < error / 1024 < most


def test_columns_that_matter_are_kept_better() -> None:
    floats = normal(64 * 256)
    weights = (c.c_float * 256)(*(100.0 if n < 16 else 0.01 for n in range(256)))
    plain, _ = coarse(floats, "Q4_K", 64, 256, None)
    cared, _ = coarse(floats, "Q4_K", 64, 256, weights)

    def lost(made: object) -> float:
        return sum(
            (floats[at] - made[at]) ** 2  # type: ignore[index]
            for row in range(64) for at in range(row * 256, row * 256 + 16)
        )  # fmt: skip

    assert lost(cared) < 0.85 * lost(plain)


def test_divergence_is_that_of_the_book() -> None:
    width, rows = 300, 40
    before, after = normal(width * rows, 2), normal(width * rows, 3)
    kept = (c.c_uint16 * (width * rows))()
    divergence.keep(c.addressof(before), rows, width, c.addressof(kept))
    found = divergence.compare(c.addressof(after), c.addressof(kept), rows, width, [5] * (rows - 1))
    assert len(found.divergence) == len(found.agrees) == rows
    assert len(found.loss_after) == rows - 1
    for row in range(rows):
        p, q = (_log_soft_max(x[row * width : (row + 1) * width]) for x in (before, after))
        truth = sum(math.exp(a) * (a - b) for a, b in zip(p, q, strict=True))
        assert found.divergence[row] == pytest.approx(truth, rel=2e-3)
        assert found.agrees[row] == (p.index(max(p)) == q.index(max(q)))
        if row < rows - 1:
            assert found.loss_before[row] == pytest.approx(-p[5], abs=5e-3)
            assert found.loss_after[row] == pytest.approx(-q[5], abs=1e-4)
    same = divergence.compare(c.addressof(before), c.addressof(kept), rows, width, [])
    assert max(same.divergence) < 1e-5


def _log_soft_max(values: list[float]) -> list[float]:
    top = max(values)
    total = top + math.log(sum(math.exp(value - top) for value in values))
    return [value - total for value in values]


def test_importance_is_the_mean_square_of_what_comes_in(tiny: Path) -> None:
    loaded = Model(tiny)
    text = [*range(300, 340)]
    wanted = {"blk.0.attn_q.weight": 64, "blk.0.attn_k.weight": 64, "blk.1.ffn_down.weight": 256}
    found, peaks = collect(loaded, wanted, [text, text[::-1]], 2, lambda _: None)
    loaded.close()
    assert set(found) == set(peaks) == set(wanted)
    # The first layer's input is the embedding, its mean square made one by the norm.
    weights = Weights(tiny)
    embedding = weights.tensors["token_embd.weight"]
    squares, largest = [0.0] * 64, [0.0, 0.0]
    for token in text:
        row = list(weights.floats(embedding, token, 1))
        scale = sum(x * x for x in row) / 64 + 1e-5
        for column, x in enumerate(row):
            squares[column] += x * x / scale / len(text)
        for block in (0, 1):
            most = max(x * x for x in row[block * 32 : block * 32 + 32])
            largest[block] += most / scale / len(text)
    for name in ("blk.0.attn_q.weight", "blk.0.attn_k.weight"):
        assert list(found[name]) == pytest.approx(squares, rel=2e-3)
        assert list(peaks[name]) == pytest.approx(largest, rel=2e-3)


def test_experts_share_what_comes_in_for_any_of_them(weights: Path, tmp_path: Path) -> None:
    loaded = Model(model(weights, tmp_path / "experts.gguf", experts=4))
    router, gate = "blk.0.ffn_gate_inp.weight", "blk.0.ffn_gate_exps.weight"
    down = "blk.0.ffn_down_exps.weight"
    wanted = {router: 64, gate: 64, down: 256}
    found, _ = collect(loaded, wanted, [[*range(300, 340)]], 1, lambda _: None)
    loaded.close()
    assert set(found) == set(wanted)
    # A router reads what its experts read, by an operation of its own.
    assert list(found[gate]) == pytest.approx(list(found[router]), rel=1e-4)
    assert min(found[down]) > 0


def test_what_rounding_of_inputs_costs_is_foreseen() -> None:
    rows, cols, count = 16, 256, 50
    matrix, inputs = normal(rows * cols, 4), normal(count * cols, 5)
    for at in range(0, count * cols, cols):
        inputs[at + 40] *= 30  # what shares a block with a huge input is lost
    data = bytearray(count * ggml.row_bytes("Q8_0", cols))
    ggml.from_floats("Q8_0", inputs, ggml.addressable(data), count, cols)
    rounded = (c.c_float * (count * cols))()
    ggml.to_floats("Q8_0", ggml.addressable(data), count * cols, rounded)
    peaks = [
        sum(max(x * x for x in inputs[at + b : at + b + 32]) for at in range(0, count * cols, cols))
        / count
        for b in range(0, cols, 32)
    ]
    truth = 0.0
    for row in range(rows):
        w = matrix[row * cols : (row + 1) * cols]
        for at in range(0, count * cols, cols):
            gap = sum(w[n] * (inputs[at + n] - rounded[at + n]) for n in range(cols))
            truth += gap * gap / count
    found = rounding(matrix, rows, cols, peaks)
    assert found[INPUTS[32]] == pytest.approx(truth, rel=0.25)
    # Where 256 inputs are rounded together, all of them suffer from one.
    assert found[INPUTS[256]] > 4 * found[INPUTS[32]]
    assert set(rounding(matrix, 2 * rows, cols // 2, peaks)) == {INPUTS[32]}


def test_eight_bits_stand_in_for_a_model(tiny: Path, tmp_path: Path) -> None:
    target = tmp_path / "stand-in.gguf"
    rewrite(
        tiny, target, lambda t: "Q8_0" if len(t.shape) > 1 else t.type, ggml.Threads(2),
        lambda _: None,
    )  # fmt: skip
    weights = Weights(target)
    name = "blk.1.ffn_down.weight"
    patient = Patient(weights, ggml.Threads(2), [name], 64)
    text = [*range(260, 320)]
    kept = (c.c_uint16 * (28 * patient.model.tokens))()
    remember(patient.readers, [text], c.addressof(kept))
    patient.coarsen({name: "Q4_0"}, {})
    hurt = sum(judge(patient.readers, [text], c.addressof(kept))[0].divergence)
    patient.restore([name])
    healed = sum(judge(patient.readers, [text], c.addressof(kept))[0].divergence)
    patient.close()
    assert hurt > 100 * healed


def test_a_patient_is_hurt_and_healed(tiny: Path, tmp_path: Path) -> None:
    weights = Weights(tiny)
    names = [t.name for t in weights.header.tensors if len(t.shape) > 1]
    patient = Patient(weights, ggml.Threads(2), names, 64)
    assert all(map(patient.reachable, names))
    texts = [[*range(260, 320)], [*range(500, 560)]]
    kept = (c.c_uint16 * (2 * 28 * patient.model.tokens))()
    remember(patient.readers, texts, c.addressof(kept))

    def loss() -> float:
        found = judge(patient.readers, texts, c.addressof(kept))
        return sum(sum(each.divergence) for each in found) / 56

    assert loss() < 1e-5
    little = patient.coarsen({"blk.0.ffn_up.weight": "Q8_0"}, {})
    slight = loss()
    patient.restore(["blk.0.ffn_up.weight"])
    much = patient.coarsen({"blk.0.ffn_up.weight": "Q4_0"}, {})
    heavy = loss()
    patient.restore(["blk.0.ffn_up.weight"])
    assert little < much / 50
    assert slight < heavy / 20
    assert loss() < 1e-5
    patient.close()


def test_a_quantised_file_becomes_its_own_reference(weights: Path, tmp_path: Path) -> None:
    target = tmp_path / "full.gguf"
    shares: list[int] = []
    dequantise(weights, target, ggml.Threads(2), shares.append)
    before, after = read_header(weights), read_header(target)
    assert not is_full(before)
    assert is_full(after)
    assert [t.name for t in after.tensors] == [t.name for t in before.tensors]
    assert shares == sorted(shares)
    a, b = Weights(weights), Weights(target)
    name = "blk.3.ffn_up.weight"
    pair = (list(each.floats(each.tensors[name], 7, 1)) for each in (a, b))
    assert next(pair) == pytest.approx(next(pair), rel=1e-3)


def test_readers_give_what_one_context_gives(tiny: Path) -> None:
    loaded = Model(tiny)
    texts = [[*range(260 + n, 300 + n)] for n in range(6)]
    width = loaded.tokens
    found = []
    for count in (1, 2):
        reading = readers(loaded, 40, count)
        at = reading.each(
            lambda context, text: list((c.c_float * width).from_address(context.run(text, 39))),
            texts,
        )
        reading.close()
        found.append(at)
    assert found[0] == found[1]
    loaded.close()
