"""A strict reader of SentencePiece's ``tokenizer.model``: a protocol buffer of pieces."""

import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec

from freehold.models.convert.config import unfit

LARGEST = 64 * 1024 * 1024
MOST_PIECES = 1_000_000
UNIGRAM, BPE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


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
    pieces: list[Piece] = []
    model, prefix = UNIGRAM, True
    for field, value in _fields(path.read_bytes()):
        if field == 1 and isinstance(value, bytes):
            pieces.append(_piece(value))
        elif field == 2 and isinstance(value, bytes):
            model = next((v for f, v in _fields(value) if f == 3 and isinstance(v, int)), UNIGRAM)
        elif field == 3 and isinstance(value, bytes):
            found = (v for f, v in _fields(value) if f == 3 and isinstance(v, int))
            prefix = bool(next(found, 1))
        if len(pieces) > MOST_PIECES:
            raise unfit(f"its {path.name} has over {MOST_PIECES} pieces")
    if not pieces:
        raise unfit(f"its {path.name} holds no pieces")
    return Pieces(pieces=tuple(pieces), model=model, prefix=prefix)


def _piece(data: bytes) -> Piece:
    text, score, kind = None, 0.0, 1
    for field, value in _fields(data):
        if field == 1 and isinstance(value, bytes):
            try:
                text = value.decode()
            except UnicodeDecodeError as error:
                raise unfit("its tokenizer.model has a piece that is no UTF-8") from error
        elif field == 2 and isinstance(value, float):
            score = value
        elif field == 3 and isinstance(value, int):
            kind = value
    if text is None or not 1 <= kind <= 6:
        raise unfit("its tokenizer.model has a piece without text, or of an unknown kind")
    return Piece(text, score, kind)


def _fields(data: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """Yield the fields of a message: number, and a whole number, a 32-bit float, or bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        field, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield field, value
        elif wire == _BYTES:
            length, at = _varint(data, at)
            yield field, _cut(data, at, length)
            at += length
        elif wire in (_FIXED32, _FIXED64):
            length = 4 if wire == _FIXED32 else 8
            piece = _cut(data, at, length)
            yield field, struct.unpack("<f" if length == 4 else "<d", piece)[0]
            at += length
        else:
            raise unfit("its tokenizer.model is damaged: a field is of no known type")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = _cut(data, at, 1)[0]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise unfit("its tokenizer.model is damaged: a number has no end")


def _cut(data: bytes, at: int, length: int) -> bytes:
    if length > len(data) - at:
        raise unfit("its tokenizer.model is damaged: it ends too early")
    return data[at : at + length]
