"""A strict reader of SentencePiece's ``tokenizer.model``: a protocol buffer of pieces."""

import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec

from freehold.models import protobuf
from freehold.models.convert.config import unfit

LARGEST = 64 * 1024 * 1024
MOST_PIECES = 1_000_000
UNIGRAM, BPE = 1, 2


class Piece(msgspec.Struct, frozen=True):
    """One piece. ``kind``: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 a byte."""

    text: str
    score: float
    kind: int


class Pieces(msgspec.Struct, frozen=True, kw_only=True):
    """A vocabulary. ``model`` is 1 for unigram, 2 for BPE; ``prefix``: a space before all text."""

    pieces: tuple[Piece, ...]
    model: int
    prefix: bool


def read_pieces(path: Path) -> Pieces:
    """Read a file; ``Invalid`` when it is not a sound one."""
    if path.stat().st_size > LARGEST:
        raise unfit(f"its {path.name} is over {LARGEST >> 20} MiB long")
    data, budget = path.read_bytes(), protobuf.Budget()
    pieces: list[Piece] = []
    model, prefix = UNIGRAM, 1
    for field, wire, begin, end in protobuf.fields(data, 0, len(data), budget):
        if wire != protobuf.BYTES:
            continue
        if field == 1:
            pieces.append(_piece(data, begin, end, budget))
        elif field == 2:
            model = _number(data, begin, end, budget, model)
        elif field == 3:
            prefix = _number(data, begin, end, budget, prefix)
        if len(pieces) > MOST_PIECES:
            raise unfit(f"its {path.name} has over {MOST_PIECES} pieces")
    if not pieces:
        raise unfit(f"its {path.name} holds no pieces")
    return Pieces(pieces=tuple(pieces), model=model, prefix=bool(prefix))


def _piece(data: bytes, begin: int, end: int, budget: protobuf.Budget) -> Piece:
    text, score, kind = None, 0.0, 1
    for field, wire, at, until in protobuf.fields(data, begin, end, budget):
        if (field, wire) == (1, protobuf.BYTES):
            text = protobuf.text(data, at, until)
        elif (field, wire) == (2, protobuf.FIXED32):
            score = struct.unpack_from("<f", data, at)[0]
        elif (field, wire) == (3, protobuf.VARINT):
            kind = at
    if text is None or not 1 <= kind <= 6:
        raise unfit("its tokenizer.model has a piece without text, or of an unknown kind")
    return Piece(text, score, kind)


def _number(data: bytes, begin: int, end: int, budget: protobuf.Budget, default: int) -> int:
    """Return the third field, a whole number, of a message: in both that are read it matters."""
    found: Iterator[int] = (
        value
        for field, wire, value, _ in protobuf.fields(data, begin, end, budget)
        if (field, wire) == (3, protobuf.VARINT)
    )
    return next(found, default)
