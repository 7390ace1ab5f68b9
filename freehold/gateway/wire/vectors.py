"""What an engine answers when it is asked for embeddings."""

from collections.abc import Sequence
from math import sqrt
from operator import mul

import msgspec

from freehold.errors import EngineLost


class _Vector(msgspec.Struct):
    embedding: list[float]
    index: int = 0


class _Vectors(msgspec.Struct):
    data: list[_Vector]


_DECODER = msgspec.json.Decoder(_Vectors)


def read_vectors(data: bytes, count: int) -> list[list[float]]:
    """Return ``count`` vectors of one length, in the order of the inputs."""
    try:
        found = sorted(_DECODER.decode(data).data, key=lambda vector: vector.index)
    except msgspec.DecodeError as error:
        raise _nonsense(str(error)) from error
    if [vector.index for vector in found] != list(range(count)):
        raise _nonsense(f"{len(found)} vectors for {count} texts")
    if len({len(vector.embedding) for vector in found}) > 1:
        raise _nonsense("vectors of several lengths")
    return [vector.embedding for vector in found]


def cosine(one: Sequence[float], two: Sequence[float]) -> float:
    """Return the cosine of the angle between two vectors; 0 where one has no direction."""
    length = sqrt(sum(map(mul, one, one))) * sqrt(sum(map(mul, two, two)))
    return sum(map(mul, one, two)) / length if length else 0.0


def _nonsense(what: str) -> EngineLost:
    return EngineLost(
        "unavailable.engine_protocol", f"the engine's answer is not what it should be: {what}"
    )
