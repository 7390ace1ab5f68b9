"""Walk over the wire format of protocol buffers, bounded. Pure: no schema, no copies of data."""

from collections.abc import Iterator
from mmap import mmap

from freehold.errors import Invalid

Buffer = bytes | mmap | memoryview
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MOST_FIELDS = 5_000_000


class Budget:
    """How many fields may still be read: of one file, at all depths together."""

    def __init__(self, fields: int = MOST_FIELDS) -> None:
        self.left = fields


def fields(
    data: Buffer, begin: int, end: int, budget: Budget
) -> Iterator[tuple[int, int, int, int]]:
    """Yield (field, wire type, begin, end) of a message between two places.

    Of a number, ``begin`` is its value and ``end`` is 0. Raises ``Invalid`` when it is no message.
    """
    at = begin
    while at < end:
        budget.left -= 1
        if budget.left < 0:
            raise _invalid("it has too many parts")
        key, at = _varint(data, at, end)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise _invalid(f"there is no field 0, at byte {at}")
        if wire == VARINT:
            value, at = _varint(data, at, end)
            yield number, wire, value, 0
            continue
        if wire == BYTES:
            size, at = _varint(data, at, end)
        elif wire in (FIXED32, FIXED64):
            size = 4 if wire == FIXED32 else 8
        else:
            raise _invalid(f"the wire type {wire} at byte {at} is not in use")
        if size > end - at:
            raise _invalid(f"a part at byte {at} would have {size} bytes, over what is there")
        yield number, wire, at, at + size
        at += size


def text(data: Buffer, begin: int, end: int, longest: int = 65_536) -> str:
    """Return the text between two places."""
    if end - begin > longest:
        raise _invalid(f"a name at byte {begin} has {end - begin} bytes")
    try:
        return bytes(data[begin:end]).decode()
    except UnicodeDecodeError as error:
        raise _invalid(f"a name at byte {begin} is not UTF-8") from error


def _varint(data: Buffer, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= end or shift > 63:
            raise _invalid(f"a number at byte {at} does not end")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7


def _invalid(said: str) -> Invalid:
    return Invalid("invalid.protobuf", f"cannot use this model file: {said}")
