"""What a matrix may become and what that is foreseen to lose."""

from pathlib import Path

import pytest

from freehold.models.compress.order import Order
from freehold.models.compress.patient import INPUTS
from freehold.models.compress.search import smallest
from freehold.models.compress.stand_in import STAND_IN
from freehold.models.compress.weights import Weights
from freehold.models.compress.work import Work
from tests.make_model import model

UP, DOWN = "blk.0.ffn_up.weight", "blk.0.ffn_down.weight"
KINDS = ("Q4_0", "IQ4_NL", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")


@pytest.fixture
def work(weights: Path, tmp_path: Path) -> Work:
    source = model(weights, tmp_path / "tiny.gguf")
    (tmp_path / "scratch").mkdir()
    order = Order(source=str(source), scratch=str(tmp_path / "scratch"), loss=0.01)
    return Work(order, lambda *_: None)


def errors(inputs: float) -> dict[str, float]:
    by_type = {kind: 1.0 / 4 ** int(kind.strip("IQ")[0]) for kind in KINDS}
    return by_type | {INPUTS[32]: inputs, INPUTS[256]: 3 * inputs}


def test_what_huge_inputs_lose_no_quantised_type_gives_back(work: Work) -> None:
    """Where inputs of a matrix cannot be rounded it stays as it is, and the others pay nothing."""
    weights = Weights(work.source)
    found = {UP: errors(0.0), DOWN: errors(0.05)}
    sensitivity = dict.fromkeys(found, 1.0)
    options = work.options(weights, found, sensitivity, 0.05)
    lost = {name: {o.kind: o.loss for o in each} for name, each in options.items()}
    assert lost[DOWN]["F16"] == lost[UP]["F16"] == 0
    assert lost[DOWN]["Q8_0"] > 100 * lost[UP]["Q8_0"]
    # K types round more inputs together.
    assert lost[DOWN]["Q6_K"] > 2 * lost[DOWN]["Q8_0"]
    assert smallest(options, 0.01).kinds[DOWN] == "F16"
    assert smallest(options, 0.01).kinds[UP] != "F16"


def test_what_inputs_lose_adds_up_to_what_was_measured(work: Work) -> None:
    weights = Weights(work.source)
    found = {UP: errors(0.02), DOWN: errors(0.06)}
    sensitivity = dict.fromkeys(found, 1.0)

    def inputs(floor: float) -> float:
        options = work.options(weights, found, sensitivity, floor)
        every = {(n, o.kind): o.loss for n, each in options.items() for o in each}
        return sum(every[name, STAND_IN] - found[name][STAND_IN] for name in found)

    everything = 0.08 + sum(found[name][STAND_IN] for name in found)
    assert inputs(0.02) == pytest.approx(0.08 * 0.02 / everything)
    assert inputs(0.0) == 0
    # More than was foreseen is not for inputs to explain.
    assert inputs(1.0) == pytest.approx(0.08)


def test_nothing_becomes_larger_than_it_is(weights: Path, tmp_path: Path) -> None:
    """A tensor that is quantised already keeps its bytes, or takes fewer."""
    work = Work(Order(source=str(weights), scratch=str(tmp_path), loss=0.01), lambda *_: None)
    source = Weights(weights)
    tensor = next(t for t in work.matrices(source) if t.type == "Q4_1")
    options = work.options(source, {tensor.name: errors(0.01)}, {tensor.name: 1.0}, 0.01)
    kinds = {option.kind: option for option in options[tensor.name]}
    assert "Q5_0" not in kinds
    assert max(option.bytes for option in kinds.values()) == tensor.bytes
    own = kinds.pop("Q4_1")
    assert kinds
    assert all(own.loss < option.loss for option in kinds.values())
