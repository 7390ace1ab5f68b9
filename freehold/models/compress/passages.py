"""Texts of tokens, cut from passages as a kind of model reads them."""

from collections.abc import Iterator, Sequence

from freehold.models.compress.patient import FIRST
from freehold.models.llama import Model

LENGTH = 256
"""Tokens of a text."""
RANKED = 9
"""Sentences of which the first is asked about the others."""


def texts_of(model: Model, passages: Sequence[str], *, encoder: bool) -> list[list[int]]:
    """Return passages as texts of at most ``LENGTH`` tokens; for an encoder each a sentence."""
    if encoder:
        found = [model.tokenize(passage, special=True)[:LENGTH] for passage in _pieces(passages)]
        return [text for text in found if len(text) > 2]
    stream: list[int] = []
    for passage in passages:
        stream += model.tokenize(passage + "\n\n")
    step = LENGTH - (model.begins is not None)
    found = [stream[at : at + step] for at in range(0, len(stream), step)]
    if len(found) > 1 and len(found[-1]) < step:
        found[-1] = stream[-step:]
    lead = [model.begins] if model.begins is not None else []
    return [lead + text for text in found if len(text) > FIRST + 2]


def pairs_of(model: Model, passages: Sequence[str]) -> list[list[int]]:
    """Return questions with passages, as a model that ranks reads them: a sentence, and each of
    those that follow it."""
    found = [model.tokenize(each, special=True)[: LENGTH // 2] for each in _pieces(passages)]
    found = [text for text in found if len(text) > 2]
    return [
        [*found[at], *(passage[1:] if model.begins is not None else passage)]
        for at in range(0, len(found) - 1, RANKED)
        for passage in found[at + 1 : at + RANKED]
    ]


def _pieces(passages: Sequence[str]) -> Iterator[str]:
    """Yield sentences: what is embedded is seldom longer."""
    for passage in passages:
        rest = passage.replace("\n", " ")
        for mark in (". ", "。", "। ", "? ", "! "):
            rest = rest.replace(mark, mark + "\0")
        yield from (part.strip() for part in rest.split("\0") if part.strip())
