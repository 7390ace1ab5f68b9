"""Vectors as engines give them, and how near they are to each other."""

import json
from typing import Any

import pytest

from freehold.errors import EngineLost
from freehold.gateway.wire.vectors import cosine, read_vectors


def vectors(*found: tuple[int, Any]) -> bytes:
    return json.dumps({"data": [{"index": i, "embedding": v} for i, v in found]}).encode()


def test_vectors_come_in_the_order_of_the_texts() -> None:
    assert read_vectors(vectors((1, [2.0]), (0, [1])), 2) == [[1.0], [2.0]]


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"{}",
        vectors((0, [1.0])),
        vectors((0, [1.0]), (0, [1.0])),
        vectors((0, [1.0]), (1, [1.0, 2.0])),
        vectors((0, [1.0]), (1, "AAAA")),
    ],
)
def test_other_answers_are_nonsense(data: bytes) -> None:
    with pytest.raises(EngineLost):
        read_vectors(data, 2)


def test_cosine() -> None:
    assert cosine([1.0, 0.0], [3.0, 0.0]) == 1
    assert cosine([1.0, 0.0], [0.0, 2.0]) == 0
    assert cosine([1.0, 1.0], [-1.0, -1.0]) == pytest.approx(-1)
    assert cosine([0.0], [1.0]) == 0
