"""What loss is: for models that predict, the divergence of predictions; for embedding models, one
minus the cosine between a text's embeddings. Either is a list of numbers a text. In children only.
"""

import mmap
import os
from collections.abc import Sequence
from pathlib import Path

from freehold.models import ggml
from freehold.models.compress.divergence import Scores
from freehold.models.compress.patient import FIRST, judge, remember
from freehold.models.llama import Context, Readers

NEAREST = 5
"""How many of the nearest others of an embedding are looked at."""
Texts = Sequence[Sequence[int]]


class Predictions:
    """Holds predictions against those of a reference, kept in a file of scratch."""

    metric = "kl"

    def __init__(self, texts: Texts, path: Path) -> None:
        self.texts, self._path = texts, path
        self._map: mmap.mmap | None = None
        self._at = self._width = 0

    def learn(self, readers: Readers) -> None:
        """Keep what a reference predicts, unless that was done before."""
        self._width = readers.model.tokens
        size = sum(len(text) - FIRST for text in self.texts) * self._width * 2
        if not self._path.exists() or self._path.stat().st_size != size:
            partial = self._path.with_suffix(".partial")
            with partial.open("w+b") as file:
                os.posix_fallocate(file.fileno(), 0, size)  # a full disk is an error, no signal
                with mmap.mmap(file.fileno(), size) as target:
                    remember(readers, self.texts, ggml.addressable(target))
            partial.replace(self._path)
        with self._path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)
        self._at = ggml.addressable(self._map)

    def part(self, first: int, last: int) -> "Predictions":
        """Return a ruler of some of the texts, with the same predictions; after ``learn`` only."""
        found = Predictions(self.texts[first:last], self._path)
        found._map = self._map
        before = sum(len(text) - FIRST for text in self.texts[:first])
        found._width = self._width
        found._at = self._at + before * self._width * 2
        return found

    def score(self, readers: Readers) -> list[Scores]:
        """Return a model's scores, text by text."""
        return judge(readers, self.texts, self._at)


class Embeddings:
    """Holds embeddings against those of a reference."""

    metric = "cosine"

    def __init__(self, texts: Texts) -> None:
        self.texts = texts
        self.before: list[list[float]] = []
        self.after: list[list[float]] = []

    def learn(self, readers: Readers) -> None:
        """Keep the reference's embeddings."""
        self.before = readers.each(_embed, self.texts)

    def score(self, readers: Readers) -> list[Scores]:
        """Return one minus the cosine of each text's two embeddings."""
        self.after = readers.each(_embed, self.texts)
        pairs = zip(self.before, self.after, strict=True)
        return [Scores(divergence=[max(0.0, 1 - _cosine(a, b))]) for a, b in pairs]

    def retrieval(self) -> list[float]:
        """Return, for each text as a question, the share of its nearest others that are the same
        as with the reference."""
        found = []
        for index in range(len(self.before)):
            nearest = [
                set(_nearest(index, vectors, NEAREST)) for vectors in (self.before, self.after)
            ]
            found.append(len(nearest[0] & nearest[1]) / max(1, len(nearest[0])))
        return found


class Ranks(Embeddings):
    """Holds the scores of a model that ranks against those of a reference.

    A text is a question and a passage in one, both closed by the model's own mark. Loss is the
    square of the difference by the spread of the reference's scores: the share of what it tells
    passages apart by that is lost.
    """

    metric = "score"

    def score(self, readers: Readers) -> list[Scores]:
        """Return the loss of each text."""
        self.after = readers.each(_embed, self.texts)
        values = [a[0] for a in self.before]
        middle = sum(values) / len(values)
        spread = sum((value - middle) ** 2 for value in values) / len(values) or 1e-12
        pairs = zip(self.before, self.after, strict=True)
        return [Scores(divergence=[(a[0] - b[0]) ** 2 / spread]) for a, b in pairs]

    def retrieval(self) -> list[float]:
        """Return, for each text, the share of others of its question that are on the same side."""
        asked: dict[tuple[int, ...], list[int]] = {}
        for index, text in enumerate(self.texts):
            asked.setdefault(_question(text), []).append(index)
        found = []
        for group in asked.values():
            for one in group:
                same = [
                    (self.before[one] > self.before[other]) == (self.after[one] > self.after[other])
                    for other in group
                    if other != one
                ]
                if same:
                    found.append(sum(same) / len(same))
        return found


def _question(text: Sequence[int]) -> tuple[int, ...]:
    return tuple(text[: list(text).index(text[-1]) + 1])


def _embed(context: Context, text: Sequence[int]) -> list[float]:
    return context.embed(text)


def _cosine(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def _nearest(index: int, vectors: Sequence[Sequence[float]], depth: int) -> list[int]:
    others = [n for n in range(len(vectors)) if n != index]
    return sorted(others, key=lambda n: -_cosine(vectors[index], vectors[n]))[:depth]
