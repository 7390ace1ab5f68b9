"""Does a loader of pickles find something to run here? Pure: bytes in.

Protocols 0 and 1 have no magic: any text can begin a pickle. A stream counts when it has named
something to import and called it, even when it breaks off after that: by then it has run.
"""

import pickletools
import re

LONGEST = 1024 * 1024
"""Bytes of a file's beginning that are read as opcodes."""
MOST_OPCODES = 200_000
_NAME = re.compile(r"[A-Za-z_][\w.]*")
_IMPORTS = frozenset({"GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"})
_CALLS = frozenset({"REDUCE", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD", "INST", "BINPERSID", "PERSID"})


def runs(data: bytes) -> str | None:
    """Return what a pickle at the beginning of ``data`` imports and calls, None when it is none."""
    imported: str | None = None
    marked = False
    strings: list[str] = []
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(data[:LONGEST])):
            name = opcode.name
            marked = marked or name == "MARK"
            if isinstance(argument, str) and name not in ("GLOBAL", "INST"):
                strings = [*strings[-1:], argument]
            if name in ("GLOBAL", "INST"):
                parts = str(argument).split(" ", 1)
                if not all(_NAME.fullmatch(part) for part in parts) or len(parts) != 2:
                    return None
            if name in _IMPORTS and (name != "INST" or marked):
                imported = str(argument or ".".join(strings)).replace(" ", ".")[:120]
            if name in _CALLS and imported is not None:
                return imported
            if number > MOST_OPCODES:
                return imported
    except Exception:  # noqa: BLE001 - whatever stops the reading: it broke off before a call
        return None
    return None
