"""Does a loader of pickles find something to run here? Pure: bytes in.

Protocols 0 and 1 have no magic: any text can begin a pickle. A stream counts when it has named
something to import and called it, even when it breaks off after that: by then it has run. Long
arguments are stepped over, not read: what comes after them counts as well.
"""

import io
import pickletools
import re
from collections.abc import Iterator
from mmap import mmap
from types import MappingProxyType
from typing import Any

LONGEST_ARGUMENT = 64 * 1024
"""Bytes of an argument that are read, and held to what its opcode wants."""
MOST_OPCODES = 200_000
ENDLESS = "more than is read here"
_IMPORTED = re.compile(r"[A-Za-z_][\w.]* [A-Za-z_][\w.]*")
_IMPORTS = frozenset({"GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"})
_ARGUMENTS = frozenset(
    {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_TUPLE", "GET", "BINGET", "LONG_BINGET", "DUP"}
)
"""What puts arguments where a call finds them, after what is called."""
_LISTS = frozenset(
    {"EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET", "FROZENSET", "STRING", "BINSTRING", "SHORT_BINSTRING",
     "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
     "BINBYTES8", "BYTEARRAY8"}
)  # fmt: skip
"""What a call takes instead where the loader is written in Python."""
_CALLS = frozenset({"REDUCE", "NEWOBJ", "NEWOBJ_EX"})
_CALLS_MARKED = frozenset({"OBJ", "INST", "BUILD"})
_OPCODES = MappingProxyType({ord(each.code): each for each in pickletools.opcodes})
_LENGTHS = MappingProxyType(
    {
        pickletools.TAKEN_FROM_ARGUMENT1: 1,
        pickletools.TAKEN_FROM_ARGUMENT4: 4,
        pickletools.TAKEN_FROM_ARGUMENT4U: 4,
        pickletools.TAKEN_FROM_ARGUMENT8U: 8,
    }
)
Opcode = tuple[str, Any, int]
"""Its name, its argument where that was read, and the place after it."""


def runs(data: bytes | mmap) -> str | None:
    """Return what a pickle at the beginning of ``data`` imports and calls, None when it is none.

    Pickles may follow each other; a loader that is called again reads the next. What goes on for
    ever as a pickle calls ``ENDLESS``.
    """
    at, left = 0, MOST_OPCODES
    while at < len(data):
        found, after, count = _one(data, at, left)
        left -= count
        if found is not None or after == at:
            return found
        at = after
    return None


def _one(data: bytes | mmap, start: int, left: int) -> tuple[str | None, int, int]:
    """Return what the pickle at a place runs, the place after it, or the same, and its opcodes."""
    imported, marked, armed, listed, strings, count = None, False, False, False, [""], 0
    try:
        for count, (name, argument, after) in enumerate(_walk(data, start), 1):
            if count > left:
                return imported or ENDLESS, after, count
            marked = marked or name == "MARK"
            armed = armed or (imported is not None and name in _ARGUMENTS)
            listed = listed or (
                imported is not None and (name in _LISTS or (marked and name in ("LIST", "DICT")))
            )
            if name in ("GLOBAL", "INST"):
                if not _IMPORTED.fullmatch(str(argument)):
                    break
            elif isinstance(argument, str):
                strings = [*strings[-1:], argument]
            if name in _IMPORTS and (name != "INST" or marked):
                imported = str(argument or ".".join(strings)).replace(" ", ".")[:120]
            called = (name in _CALLS and (armed or listed)) or (
                name in _CALLS_MARKED and (marked or armed)
            )
            if called and imported is not None:
                return imported, after, count
            if name == "STOP":
                return None, after, count
    except Exception:  # noqa: BLE001, S110 - whatever ends the reading: it broke off before a call
        pass
    return None, start, count


def _walk(data: bytes | mmap, at: int) -> Iterator[Opcode]:
    """Yield opcodes from a place on; raises whatever it likes where there is none."""
    while at < len(data):
        opcode = _OPCODES[data[at]]
        begin = at + 1
        at = begin + _width(data, begin, opcode)
        if at > len(data):
            return
        argument = None
        if opcode.arg is not None and at - begin <= LONGEST_ARGUMENT:
            argument = opcode.arg.reader(io.BytesIO(data[begin:at]))
        yield opcode.name, argument, at


def _width(data: bytes | mmap, begin: int, opcode: pickletools.OpcodeInfo) -> int:
    """Return the bytes of an opcode's argument."""
    if opcode.arg is None:
        return 0
    if opcode.arg.n >= 0:
        return opcode.arg.n
    if opcode.arg.n == pickletools.UP_TO_NEWLINE:
        at = begin
        for _ in range(2 if opcode.name in ("GLOBAL", "INST") else 1):
            at = _line(data, at)
        return at - begin
    length = _LENGTHS[opcode.arg.n]
    return length + int.from_bytes(data[begin : begin + length], "little")


def _line(data: bytes | mmap, at: int) -> int:
    found = data.find(b"\n", at)
    if found < 0:
        raise ValueError("a line does not end")
    return found + 1
