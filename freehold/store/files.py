"""Small truths about files that hold bytes by digest."""

import os
from pathlib import Path


def is_digest(text: str) -> bool:
    """Say whether a text is a SHA-256 in hex, as all names here are."""
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a directory's names, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
