"""Which tensors become what, and which are judged together."""

import pytest

from freehold.models.compress.kinds import (
    BANDS,
    candidates,
    groups,
    inputs,
    is_matrix,
    probe,
    shuffled,
    spread,
)
from freehold.models.gguf import TENSOR_TYPES, Tensor

SIZES = {name: (block, size) for name, block, size in TENSOR_TYPES.values()}


def tensor(name: str, *shape: int) -> Tensor:
    return Tensor(name, "F16", shape, 0, 0)


@pytest.mark.parametrize(
    ("name", "shape", "wanted"),
    [
        ("blk.0.attn_q.weight", (896, 896), True),
        ("token_embd.weight", (896, 1000), True),
        ("blk.0.attn_norm.weight", (896,), False),
        ("blk.0.attn_q.bias", (896, 896), False),
        ("blk.0.ffn_gate_inp.weight", (2048, 64), False),
        ("blk.0.ssm_conv1d.weight", (4, 8192), False),
        ("odd.weight", (100, 1000), False),
        ("tiny.weight", (64, 64), False),
    ],
)
def test_matrices_are_quantised_and_nothing_else(
    name: str, shape: tuple[int, ...], wanted: bool
) -> None:
    assert is_matrix(tensor(name, *shape)) == wanted


@pytest.mark.parametrize("cols", [32, 896, 576, 256, 4864])
@pytest.mark.parametrize("tiny", [False, True])
def test_what_a_tensor_may_become_fits_its_rows(cols: int, tiny: bool) -> None:
    found = candidates(tensor("x.weight", cols, 1000), tiny=tiny)
    assert len(found) >= 6
    assert all(cols % SIZES[kind][0] == 0 for kind in found)
    bits = {kind: 8 * SIZES[kind][1] / SIZES[kind][0] for kind in found}
    assert len(bits) == len(found)
    assert (min(bits.values()) < 2.6) == (tiny and cols % 256 == 0)


def test_layers_of_a_role_are_judged_in_bands() -> None:
    tensors = [
        tensor(f"blk.{n}.{r}.weight", 64, 64) for n in range(24) for r in ("attn_q", "ffn_up")
    ]
    found = groups([*tensors, tensor("output.weight", 64, 64)], 24)
    assert len(found) == 2 * BANDS + 1
    assert [t.name for t in found["output"]] == ["output.weight"]
    assert sorted(t.name for group in found.values() for t in group) == sorted(
        [*(t.name for t in tensors), "output.weight"]
    )
    assert len(groups(tensors[:2], 1)) == 2


def test_a_sample_is_spread_evenly() -> None:
    assert list(spread(3, 5)) == [0, 1, 2]
    assert list(spread(100, 4)) == [12, 37, 62, 87]
    assert len(set(spread(1000, 48))) == 48


def test_every_beginning_of_a_shuffled_list_is_spread() -> None:
    found = shuffled(range(16))
    assert sorted(found) == list(range(16))
    for count in (4, 6, 8):
        first = sorted(found[:count])
        assert max(b - a for a, b in zip([-1, *first], [*first, 16], strict=True)) <= 32 / count


def test_what_may_have_huge_inputs_is_probed_as_what_it_may_become() -> None:
    for shape, wanted in ((4864, "Q4_K"), (896, "IQ4_NL")):
        down = tensor("blk.0.ffn_down.weight", shape, 896)
        assert probe(down) == wanted
        assert probe(down) in candidates(down)
    assert probe(tensor("blk.0.ffn_up.weight", 896, 4864)) == "Q4_0"


def test_inputs_are_rounded_by_block() -> None:
    assert [inputs(kind) for kind in ("F16", "Q8_0", "IQ4_NL", "Q4_K", "IQ4_XS")] == [
        0, 32, 32, 256, 256,
    ]  # fmt: skip
