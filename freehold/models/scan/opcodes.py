"""Does a loader of pickles find something to run here? Pure: bytes in.

Protocols 0 and 1 have no magic: any text can begin a pickle. A stream counts when it has named
something to import and called it, even when it breaks off after that: by then it has run.
"""

import io
import pickletools
import re

LONGEST = 1024 * 1024
"""Bytes of a file's beginning that are read as opcodes."""
MOST_OPCODES = 200_000
_IMPORTED = re.compile(r"[A-Za-z_][\w.]* [A-Za-z_][\w.]*")
_IMPORTS = frozenset({"GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"})
_ARGUMENTS = frozenset(
    {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_TUPLE", "GET", "BINGET", "LONG_BINGET", "DUP"}
)
"""What puts arguments where a call finds them, after what is called."""
_CALLS = frozenset({"REDUCE", "NEWOBJ", "NEWOBJ_EX"})
_CALLS_MARKED = frozenset({"OBJ", "INST", "BUILD"})


def runs(data: bytes) -> str | None:
    """Return what a pickle at the beginning of ``data`` imports and calls, None when it is none.

    Pickles may follow each other; a loader that is called again reads the next.
    """
    file = io.BytesIO(data[:LONGEST])
    while file.tell() < len(data):
        start = file.tell()
        found = _one(file)
        if found is not None or file.tell() == start:
            return found
    return None


def _one(file: io.BytesIO) -> str | None:
    """Return what the pickle at the file's place runs; the place stays where it is none."""
    start, imported, marked, armed, strings = file.tell(), None, False, False, [""]
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            name = opcode.name
            marked = marked or name == "MARK"
            armed = armed or (imported is not None and name in _ARGUMENTS)
            if name in ("GLOBAL", "INST"):
                if not _IMPORTED.fullmatch(str(argument)):
                    break
            elif isinstance(argument, str):
                strings = [*strings[-1:], argument]
            if name in _IMPORTS and (name != "INST" or marked):
                imported = str(argument or ".".join(strings)).replace(" ", ".")[:120]
            called = (name in _CALLS and armed) or (name in _CALLS_MARKED and (marked or armed))
            if (called and imported is not None) or number > MOST_OPCODES:
                return imported
            if name == "STOP":
                return None
    except Exception:  # noqa: BLE001, S110 - whatever ends the reading: it broke off before a call
        pass
    file.seek(start)
    return None
