"""JSON from elsewhere: what two readers could differ about, and what takes too much memory."""

import tracemalloc

import pytest

from freehold.errors import Invalid
from freehold.models.strict_json import LONGEST, decode


@pytest.mark.parametrize(
    "text",
    ['{"a": 1, "a": 2}', '{"a": NaN}', "[" * 100_000 + "]" * 100_000, '"\\ud800', "1" * 5000, ""],
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        decode(text.encode(), "it")


@pytest.mark.parametrize("piece", [b"[],", b"{},", b"1,", b'"",'])
def test_values_without_end_take_no_memory(piece: bytes) -> None:
    data = b"[" + piece * ((LONGEST - 3) // len(piece)) + b"1]"
    tracemalloc.start()
    try:
        with pytest.raises(Invalid, match="holds over"):
            decode(data, "it")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_an_index_of_a_large_model_is_read() -> None:
    names = ",".join(
        f'"model.layers.{n}.mlp.up_proj.weight":"model-1.safetensors"' for n in range(200_000)
    )
    assert len(decode(f'{{"weight_map":{{{names}}}}}'.encode(), "it")["weight_map"]) == 200_000
