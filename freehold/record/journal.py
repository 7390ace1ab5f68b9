"""The journal: an append-only file a process, durable before the caller goes on.

Group commit: while one fsync runs, further entries gather and share the next one, so the cost of
durability is one disk write for many requests and hides behind generation. This is the seam where
the tamper-evident log will chain entries: everything written passes through ``Journal.append``.
"""

import asyncio
import errno
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from freehold.errors import Unavailable
from freehold.record.entry import Entry

Told = Callable[[Sequence[tuple[Entry, str, int]]], None]
"""Called on the loop, in the order of the file, before those who wait go on: with each entry, the
file's name and where its line ends there, or ``""`` and 0 when it could not be written."""


class Journal:
    """Appends lines for one process; one background thread writes and syncs them.

    Files are ``DIRECTORY/WRITER-MILLISECONDS.jsonl``. A process never appends to another's file:
    a line torn by a kill stays the last of a file nobody writes to, and readers skip it.
    """

    def __init__(
        self, directory: Path, writer: str, segment_bytes: int, told: Told = lambda _: None
    ) -> None:
        self._directory = directory
        self._writer = writer
        self._segment_bytes = segment_bytes
        self._told = told
        self._waiting: list[_Line] = []
        self._batches: queue.SimpleQueue[list[_Line]] = queue.SimpleQueue()
        self._closing = False
        self._descriptor = -1
        self._name = ""
        self._length = 0
        self._stamp = 0
        self._loop = asyncio.get_running_loop()
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def append(self, line: bytes, entry: Entry | None = None) -> asyncio.Future[None]:
        """Queue a line; the future is done when it is on disk, or failed with ``Unavailable``.

        Whoever is told hears of its ``entry`` first, always and once.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        if self._closing:
            self._settle([(line, future, entry)], "", 0, _unavailable("the journal is closed"))
            return future
        if not self._waiting:  # what else comes in this turn of the loop goes along
            self._loop.call_soon(self._hand_over)
        self._waiting.append((line, future, entry))
        return future

    def close(self) -> None:
        """Write what is queued and stop the thread."""
        self._closing = True
        self._hand_over()
        self._batches.put([])
        self._thread.join()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _hand_over(self) -> None:
        if self._waiting:
            batch, self._waiting = self._waiting, []
            self._batches.put(batch)

    def _run(self) -> None:
        going_on = True
        while going_on:
            batch = self._batches.get()
            going_on = bool(batch)
            with suppress(queue.Empty):
                while going_on:
                    more = self._batches.get_nowait()
                    going_on = bool(more)
                    batch += more
            if batch:
                data = b"".join([line for line, _, _ in batch])
                failure = self._commit(data)
                begin = self._length - len(data)
                self._loop.call_soon_threadsafe(self._settle, batch, self._name, begin, failure)

    def _commit(self, data: bytes) -> Unavailable | None:
        try:
            if self._descriptor < 0 or self._length >= self._segment_bytes:
                self._open_segment()
            _write_all(self._descriptor, data)
            os.fdatasync(self._descriptor)
        except OSError as error:
            self._leave_segment()
            reason = "the disk is full" if error.errno == errno.ENOSPC else str(error.strerror)
            return _unavailable(f"the record cannot be written: {reason}")
        self._length += len(data)
        return None

    def _open_segment(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        # Later than the one before also when the clock was set back, or is not that fine.
        self._stamp = max(self._stamp + 1, time.time_ns() // 1_000_000)
        path = self._directory / f"{self._writer}-{self._stamp}.jsonl"
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._name = path.name
        self._length = 0
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

    def _settle(
        self, batch: "list[_Line]", name: str, end: int, failure: Unavailable | None
    ) -> None:
        written: list[tuple[Entry, str, int]] = []
        for line, _, entry in batch:
            end += len(line)
            if entry is not None:
                written.append((entry, "", 0) if failure is not None else (entry, name, end))
        self._told(written)
        for _, future, _ in batch:
            if future.done():
                continue
            if failure is None:
                future.set_result(None)
            else:
                future.set_exception(failure)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


_Line = tuple[bytes, asyncio.Future[None], Entry | None]


def _unavailable(text: str) -> Unavailable:
    return Unavailable(
        "unavailable.audit", f"{text}; nothing is answered without a record", retry_after=5
    )
