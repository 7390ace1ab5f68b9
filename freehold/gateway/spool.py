"""The end of an upload's file, while a body is appended to it.

A thread writes and hashes one part of the body while the next one comes: neither waits for the
other, and nobody needs to read a blob again to know its digest. An upload holds two parts in
memory at a time.
"""

import asyncio
import errno
import fcntl
import hashlib
import os
import sys
from collections import OrderedDict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Any

from freehold.errors import Conflict, OutOfRange, TooLarge, Unavailable

PART = 2 * 1024 * 1024
KEPT = 256
"""Uploads of which the digest so far is remembered: a few hundred bytes each."""


class Digests:
    """What uploads hash to so far, where this gateway has written them from their first byte on."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._known: OrderedDict[Path, tuple[int, Any]] = OrderedDict()

    def take(self, path: Path, start: int) -> Any:
        """Return the running digest of what comes after ``start`` bytes, None if it is unknown."""
        position, digest = self._known.pop(path, (0, None))
        if start == 0:
            return hashlib.sha256()
        return digest if position == start else None

    def keep(self, path: Path, position: int, digest: Any) -> None:
        """Remember the digest of the first ``position`` bytes of an upload."""
        self._known[path] = (position, digest)
        while len(self._known) > self._kept:
            self._known.popitem(last=False)

    def finish(self, path: Path, size: int) -> str:
        """Return the SHA-256 (hex) of an upload of so many bytes, "" if it is unknown."""
        position, digest = self._known.pop(path, (-1, None))
        return digest.hexdigest() if position == size else ""


async def append(
    pieces: AsyncIterator[bytes], path: Path, start: int, limit: int, digests: Digests
) -> int:
    """Write a body to the end of an upload that has ``start`` bytes; return how many it has now.

    Whatever happens, what has come is kept, so that whoever sends it can go on after it.
    """
    try:
        file = path.open("r+b", buffering=0)
    except FileNotFoundError as error:
        raise _over() from error
    with file:
        _lock(file, path)
        if file.seek(0, os.SEEK_END) != start:
            raise OutOfRange("invalid.range", "another request has written to this upload")
        spool = _Spool(file, start, limit, digests.take(path, start))
        try:
            await spool.fill(pieces)
        finally:
            try:
                await spool.flush()
            finally:
                if spool.digest is not None:
                    digests.keep(path, spool.position, spool.digest)
        return spool.position


def _lock(file: IO[bytes], path: Path) -> None:
    """Make sure that nobody else writes to an upload, nor has made a blob of it meanwhile."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            raise _over()
    except FileNotFoundError as error:
        raise _over() from error
    except OSError as error:
        raise Conflict("conflict.upload", "another request writes to this upload") from error


def _over() -> Conflict:
    return Conflict("conflict.upload", "the upload is over: begin again")


class _Spool:
    """Parts on their way to a file, of which ``position`` bytes are written, and hashed."""

    def __init__(self, file: IO[bytes], start: int, limit: int, digest: Any) -> None:
        self._file = file
        self._limit = limit
        self._part, self._other = memoryview(bytearray(PART)), memoryview(bytearray(PART))
        self._filled = 0
        self._writing: asyncio.Future[None] | None = None
        self.position = start
        self.digest = digest

    async def fill(self, pieces: AsyncIterator[bytes]) -> None:
        """Take a body in; waits for the disk only when both parts are full."""
        part, filled = self._part, 0
        async for piece in pieces:
            end = filled + len(piece)
            if end <= PART:
                part[filled:end] = piece
                filled = self._filled = end
                continue
            left = memoryview(piece)
            while left:
                count = min(PART - filled, len(left))
                part[filled : filled + count] = left[:count]
                left, self._filled = left[count:], filled + count
                if self._filled == PART:
                    await self._turn()
                part, filled = self._part, self._filled

    async def flush(self) -> None:
        """Write what is left."""
        if self._filled:
            await self._turn()
        await self._settle()

    async def _turn(self) -> None:
        """Begin to write the part that is filled, and go on with the other."""
        await self._settle()
        full, self._filled = self._part[: self._filled], 0
        if self.position + len(full) > self._limit:
            raise too_large(self._limit)
        self._part, self._other = self._other, self._part
        loop = asyncio.get_running_loop()
        self._writing = loop.run_in_executor(None, self._write, full)

    async def _settle(self) -> None:
        """Wait until the part that is being written is on its way to the disk."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            await writing
        except OSError as error:
            self._filled = 0
            self._file.truncate(self.position)
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise no_space() from error
            raise Unavailable("unavailable.io", f"cannot write the upload: {error}") from error

    def _write(self, data: memoryview) -> None:
        left = data
        while left:
            left = left[self._file.write(left) :]
        _write_out(self._file, self.position, len(data))
        if self.digest is not None:
            self.digest.update(data)
        self.position += len(data)


def _write_out(file: IO[bytes], start: int, count: int) -> None:
    """Have the kernel begin to write a part to the disk: at the end there is little to wait for.

    What it is told is that we do not need it in memory; but what is not on disk yet stays there.
    """
    if sys.platform == "linux":
        os.posix_fadvise(file.fileno(), start, count, os.POSIX_FADV_DONTNEED)


def too_large(limit: int) -> TooLarge:
    """Return the error for a blob that is larger than the settings, or a quota, allow."""
    return TooLarge(
        "invalid.size",
        f"a blob is at most {limit} bytes: registry.blob_limit, or what a quota leaves",
    )


def no_space() -> Unavailable:
    """Return the error for a disk that is full."""
    return Unavailable("unavailable.disk", "no space left for the upload: free some and go on")
