"""Layers packed with zstd: Python's own from 3.14 on, before that by a small extra."""

import sys
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import IO, cast

from freehold.errors import Unavailable


def zstd() -> ModuleType:
    """Return the library; ``Unavailable`` says how to get it."""
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd as found
        else:
            from backports import zstd as found
    except ImportError as error:
        raise Unavailable(
            "unavailable.extra",
            "layers packed with zstd need: pip install 'freehold[zstd]'; or push them unpacked",
        ) from error
    return found


def open_zstd(path: Path) -> AbstractContextManager[IO[bytes]]:
    """Open a file that zstd packed, to read what is in it."""
    return cast("AbstractContextManager[IO[bytes]]", zstd().open(path, "rb"))
