"""What loss is for models that embed and for models that rank."""

from collections.abc import Sequence
from typing import Any

import pytest

from freehold.models.compress.ruler import Embeddings, Ranks

QUESTION, OTHER, END = [1, 5, 2], [1, 6, 2], 2
TEXTS = [
    *([*QUESTION, word, END] for word in (10, 11, 12)),
    *([*OTHER, word, END] for word in (10, 11, 12)),
]


class Reader:
    """Gives what it was told for each text, in their order."""

    def __init__(self, *found: Sequence[float]) -> None:
        self.found = [list(each) for each in found]

    def each(self, _read: Any, _texts: Any) -> list[list[float]]:
        return self.found


def scores(*values: float) -> Any:
    return Reader(*([value] for value in values))


def test_scores_that_stay_lose_nothing_and_keep_their_order() -> None:
    ruler = Ranks(TEXTS)
    ruler.learn(scores(1, 2, 3, 4, 5, 6))
    found = ruler.score(scores(1, 2, 3, 4, 5, 6))
    assert [each.divergence for each in found] == [[0.0]] * 6
    assert ruler.retrieval() == [1.0] * 6


def test_loss_is_the_share_of_the_spread_that_is_lost() -> None:
    ruler = Ranks(TEXTS)
    ruler.learn(scores(-1, 1, -1, 1, -1, 1))  # a spread of 1
    found = ruler.score(scores(-1, 1, -1, 1, -1, 1.5))
    assert found[-1].divergence == [pytest.approx(0.25)]
    # Whoever knew nothing but the mean would lose all of it.
    lost = [each.divergence[0] for each in ruler.score(scores(0, 0, 0, 0, 0, 0))]
    assert sum(lost) / len(lost) == pytest.approx(1.0)


def test_order_is_that_within_a_question() -> None:
    ruler = Ranks(TEXTS)
    ruler.learn(scores(1, 2, 3, 4, 5, 6))
    ruler.score(scores(11, 12, 13, 4, 5, 6))  # all of one question moved: no passage changed place
    assert ruler.retrieval() == [1.0] * 6
    ruler.score(scores(3, 2, 1, 4, 5, 6))
    assert ruler.retrieval() == [0.0] * 3 + [1.0] * 3
    ruler.score(scores(2, 1, 3, 4, 5, 6))
    assert ruler.retrieval() == [0.5, 0.5, 1.0, 1.0, 1.0, 1.0]


def test_embeddings_keep_their_nearest() -> None:
    ruler = Embeddings([[1], [2], [3]])
    ruler.learn(Reader([1, 0], [0, 1], [0.6, 0.8]))  # type: ignore[arg-type]
    found = ruler.score(Reader([1, 0], [0, 1], [0.8, 0.6]))  # type: ignore[arg-type]
    assert [each.divergence[0] for each in found] == pytest.approx([0, 0, 0.04])
    assert ruler.retrieval() == [1.0, 1.0, 1.0]  # all others are among the five nearest
