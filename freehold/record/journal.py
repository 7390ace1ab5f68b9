"""The journal: an append-only file a process, durable before the caller goes on.

Group commit: while one sync runs, further entries gather and share the next one, so the cost of
durability is one disk write for many requests and hides behind generation. This is the seam where
the tamper-evident log will chain entries: everything written passes through ``Journal.append``.
"""

import asyncio
import errno
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from freehold.errors import Unavailable
from freehold.record.entry import Entry
from freehold.record.sync import Sync, ThreadSync, open_sync

GATHER = 0.001
"""Seconds in which lines gather for the next sync, where one was shared: syncs cost a core too."""

Told = Callable[[Sequence[tuple[Entry, str, int]]], None]
"""Called on the loop, in the order of the file, before those who wait go on: with each entry, the
file's name and where its line ends there, or ``""`` and 0 when it could not be written."""

_Line = tuple[bytes, asyncio.Future[None], Entry | None]


class Journal:
    """Appends lines for one process.

    Files are ``DIRECTORY/WRITER-MILLISECONDS.jsonl``. A process never appends to another's file:
    a line torn by a kill stays the last of a file nobody writes to, and readers skip it.
    ``trouble`` says why the last lines could not be written; None once some were.
    """

    def __init__(
        self, directory: Path, writer: str, segment_bytes: int, told: Told = lambda _: None
    ) -> None:
        self._directory = directory
        self._writer = writer
        self._segment_bytes = segment_bytes
        self._told = told
        self._waiting: list[_Line] = []
        self._written: list[_Line] = []
        self._busy = False
        self._closing = False
        self._descriptor = -1
        self._name = ""
        self._length = 0
        self._stamp = 0
        self.trouble: str | None = None
        self._loop = asyncio.get_running_loop()
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._sync: Sync = open_sync(self._synced)

    def append(self, line: bytes, entry: Entry | None = None) -> asyncio.Future[None]:
        """Queue a line; the future is done when it is on disk, or failed with ``Unavailable``.

        Whoever is told hears of its ``entry`` first, always and once.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        if self._closing:
            self._settle([(line, future, entry)], _unavailable("the journal is closed"))
            return future
        self._waiting.append((line, future, entry))
        if not self._busy:  # what else comes in this turn of the loop goes along
            self._busy = True
            self._loop.call_soon(self._write)
        return future

    async def is_writable(self) -> bool:
        """Say whether a record would be kept now; where the last one was not, try an empty line."""
        if self.trouble is not None:
            with suppress(Unavailable):
                await self.append(b"\n")
        return self.trouble is None

    def close(self) -> None:
        """Write what is queued, and let go of the file."""
        self._closing = True
        self._sync.close()
        if self._written or self._waiting:
            self._write_now()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self) -> None:
        """Write what waits, and begin to make it durable; ``_synced`` goes on from there."""
        self._busy = bool(self._waiting)
        if not self._waiting or self._closing:
            return
        if self._descriptor < 0 or self._length >= self._segment_bytes:
            # New files take their time, and streams that run shall not wait for that.
            opening = self._loop.run_in_executor(None, self._open_segment)
            opening.add_done_callback(self._opened)
            return
        self._written, self._waiting = self._waiting, []
        try:
            _write_all(self._descriptor, b"".join([line for line, _, _ in self._written]))
            self._begin()
        except OSError as error:
            self._over(error.errno or -1)

    def _begin(self) -> None:
        try:
            self._sync.begin(self._descriptor)
        except OSError:
            self._sync.close()
            self._sync = ThreadSync(self._synced)  # the kernel cannot do it for this file system
            self._sync.begin(self._descriptor)

    def _opened(self, opening: "asyncio.Future[None]") -> None:
        if opening.cancelled() or self._closing:
            return
        error = opening.exception()
        if error is None:
            self._write()
        else:
            self._written, self._waiting = self._waiting, []
            self._over(error.errno or -1 if isinstance(error, OSError) else -1)

    def _synced(self, number: int) -> None:
        if not self._closing:
            self._over(number)

    def _over(self, number: int) -> None:
        """Tell those whose lines are durable, or could not be written; then do the next."""
        alone = len(self._written) == 1
        try:
            self._end(number)
        finally:
            if not self._waiting:
                self._busy = False
            elif alone:
                self._write()
            else:
                self._loop.call_later(GATHER, self._write)

    def _write_now(self) -> None:
        """Write and sync here, where nothing else is to be done any more."""
        number = 0
        try:
            if self._descriptor < 0:
                self._open_segment()
            _write_all(self._descriptor, b"".join([line for line, _, _ in self._waiting]))
            os.fdatasync(self._descriptor)
        except OSError as error:
            number = error.errno or -1
        self._written, self._waiting = self._written + self._waiting, []
        self._end(number)

    def _end(self, number: int) -> None:
        batch, self._written = self._written, []
        if number:
            self._leave_segment()
            reason = "the disk is full" if number == errno.ENOSPC else os.strerror(number)
            self.trouble = reason
            self._settle(batch, _unavailable(f"the record cannot be written: {reason}"))
        else:
            self.trouble = None
            self._settle(batch, None)

    def _settle(self, batch: list[_Line], failure: Unavailable | None) -> None:
        told: list[tuple[Entry, str, int]] = []
        for line, _, entry in batch:
            if failure is None:
                self._length += len(line)
            if entry is not None:
                told.append((entry, "", 0) if failure else (entry, self._name, self._length))
        try:
            self._told(told)
        finally:  # whatever befalls who is told, nobody waits for ever
            for _, future, _ in batch:
                if future.done():
                    continue
                if failure is None:
                    future.set_result(None)
                else:
                    future.set_exception(failure)

    def _open_segment(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        # Later than the one before also when the clock was set back, or is not that fine.
        self._stamp = max(self._stamp + 1, time.time_ns() // 1_000_000)
        path = self._directory / f"{self._writer}-{self._stamp}.jsonl"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._name = path.name
        self._length = 0
        self._descriptor = descriptor
        parent = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)

    def _leave_segment(self) -> None:
        """End a segment of which the last write failed; the next line begins another.

        Its torn end may have been read already: lines written in its place would never be.
        """
        if self._descriptor < 0:
            return
        with suppress(OSError):
            os.ftruncate(self._descriptor, self._length)
        with suppress(OSError):
            os.close(self._descriptor)
        self._descriptor = -1
        if not self._length:  # a full disk shall not fill up with empty files
            with suppress(OSError):
                (self._directory / self._name).unlink()


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _unavailable(text: str) -> Unavailable:
    return Unavailable(
        "unavailable.audit", f"{text}; nothing is answered without a record", retry_after=5
    )
