"""The journal: an append-only file a process, durable before the caller goes on.

Group commit: while one fsync runs, further entries gather and share the next one, so the cost of
durability is one disk write for many requests and hides behind generation. This is the seam where
the tamper-evident log will chain entries: everything written passes through ``Journal.append``.
"""

import asyncio
import errno
import os
import threading
import time
from pathlib import Path

from freehold.errors import Unavailable


class Journal:
    """Appends lines for one process; one background thread writes and syncs them.

    Files are ``DIRECTORY/WRITER-MILLISECONDS.jsonl``. A process never appends to another's file:
    a line torn by a kill stays the last of a file nobody writes to, and readers skip it.
    """

    def __init__(self, directory: Path, writer: str, segment_bytes: int) -> None:
        self._directory = directory
        self._writer = writer
        self._segment_bytes = segment_bytes
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._wake = threading.Condition()
        self._closing = False
        self._descriptor = -1
        self._length = 0
        self._loop = asyncio.get_running_loop()
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def append(self, line: bytes) -> asyncio.Future[None]:
        """Queue a line; the future is done when it is on disk, or failed with ``Unavailable``."""
        future: asyncio.Future[None] = self._loop.create_future()
        with self._wake:
            if self._closing:
                future.set_exception(_unavailable("the journal is closed"))
                return future
            self._waiting.append((line, future))
            self._wake.notify()
        return future

    def close(self) -> None:
        """Write what is queued and stop the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._waiting and not self._closing:
                    self._wake.wait()
                batch, self._waiting = self._waiting, []
                if not batch and self._closing:
                    return
            failure = self._commit(b"".join(line for line, _ in batch))
            self._loop.call_soon_threadsafe(_settle, [future for _, future in batch], failure)

    def _commit(self, data: bytes) -> Unavailable | None:
        try:
            if self._descriptor < 0 or self._length >= self._segment_bytes:
                self._open_segment()
            _write_all(self._descriptor, data)
            os.fdatasync(self._descriptor)
        except OSError as error:
            self._forget_torn_write()
            reason = "the disk is full" if error.errno == errno.ENOSPC else str(error.strerror)
            return _unavailable(f"the record cannot be written: {reason}")
        self._length += len(data)
        return None

    def _open_segment(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        path = self._directory / f"{self._writer}-{time.time_ns() // 1_000_000}.jsonl"
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._length = 0
        parent = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)

    def _forget_torn_write(self) -> None:
        # Without this, the next line would be glued to half a line and both would be lost.
        if self._descriptor >= 0:
            try:
                os.ftruncate(self._descriptor, self._length)
            except OSError:
                os.close(self._descriptor)
                self._descriptor = -1


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _settle(futures: list[asyncio.Future[None]], failure: Unavailable | None) -> None:
    for future in futures:
        if future.done():
            continue
        if failure is None:
            future.set_result(None)
        else:
            future.set_exception(failure)


def _unavailable(text: str) -> Unavailable:
    return Unavailable(
        "unavailable.audit", f"{text}; nothing is answered without a record", retry_after=5
    )
