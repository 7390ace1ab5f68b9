"""Fetch one large file by several connections, each a range of it at a time.

The one place that runs ranges; a source only opens them. Threads, because sources are synchronous;
each holds one piece, which it writes where it belongs. Whoever calls hashes, meanwhile, what is
whole from the beginning on, so that nothing is left to be read at the end.
"""

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Generator
from contextlib import closing

from freehold.errors import FreeholdError
from freehold.models.partial import Partial
from freehold.models.ranges import CONNECTIONS, Span, missing

TRIES = 4
PAUSE = 0.2
MOMENT = 0.05
HASHED = 1 * 1024 * 1024
Open = Callable[[Span], Generator[memoryview, None, None]]
"""Opens a range and yields its bytes. Raises ``CutOff``, ``Unranged``, or what ends the fetch."""


class CutOff(Exception):
    """A connection was refused, stalled or broke off: the rest of its range is asked for again."""


class Unranged(Exception):
    """The source gives no ranges, or not of these bytes: take the file whole, from its start."""


def fetch_ranges(partial: Partial, opened: Open, progress: Callable[[int], None]) -> str:
    """Bring all that is missing of ``partial``; return the SHA-256 (hex) of the whole.

    ``progress`` is told the bytes that are here, in the thread that calls; what it raises ends the
    fetch. Raises the last ``CutOff`` once no connection is left that gets anything.
    """
    file = partial.open()
    crew = _Crew(partial, opened)
    try:
        return _hashed(crew, partial, file, progress)
    finally:
        crew.stop()
        partial.close()


def _hashed(crew: "_Crew", partial: Partial, file: int, progress: Callable[[int], None]) -> str:
    digest, at = hashlib.sha256(), 0
    while at < partial.size:
        crew.check()
        progress(partial.bytes)
        until = partial.first
        if until < min(at + HASHED, partial.size):
            crew.wait(MOMENT)
            continue
        piece = os.pread(file, min(HASHED, until - at), at)
        if not piece:
            raise OSError("a file became shorter while it was fetched")
        digest.update(piece)
        at += len(piece)
    progress(at)
    return digest.hexdigest()


class _Crew:
    """The threads, and the ranges they take from the front of one line."""

    def __init__(self, partial: Partial, opened: Open) -> None:
        self._partial = partial
        self._opened = opened
        self._line = deque(missing(partial.held, partial.size))
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._work, name=f"range-{number}", daemon=True)
            for number in range(min(CONNECTIONS, len(self._line)))
        ]
        self._left = len(self._threads)
        for thread in self._threads:
            thread.start()

    def check(self) -> None:
        """Raise what ended the fetch."""
        if self._error is not None:
            raise self._error

    def wait(self, seconds: float) -> None:
        """Let the threads bring something."""
        self._ended.wait(seconds)

    def stop(self) -> None:
        """End the threads: each after the piece that it waits for."""
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        failed = 0
        while (span := self._next()) is not None:
            why = self._bring(span)
            if why is None:
                failed = 0
                continue
            failed += 1
            if failed == TRIES:
                self._give_up(why)
                return
            self._ended.wait(PAUSE * 2**failed)

    def _next(self) -> Span | None:
        with self._lock:
            if self._line and not self._ended.is_set():
                return self._line.popleft()
            self._left -= 1
            return None

    def _bring(self, span: Span) -> CutOff | None:
        """Bring a range; what is missing of it goes back to the front of the line."""
        at, end = span
        why = CutOff("it breaks off early")
        try:
            with closing(self._opened(span)) as pieces:
                for piece in pieces:
                    self._partial.write(at, piece[: end - at])
                    at = min(end, at + len(piece))
                    if at == end or self._ended.is_set():
                        break
        except CutOff as error:
            why = error
        except BaseException as error:  # noqa: BLE001 - it is raised where the fetch was called
            self._end(error)
            return None
        if at == end or self._ended.is_set():
            return None
        with self._lock:
            self._line.appendleft((at, end))
        return why

    def _give_up(self, why: CutOff) -> None:
        """Leave the rest to the others, if there are any: many stores allow fewer connections."""
        with self._lock:
            self._left -= 1
            alone = self._left == 0
        if alone:
            self._end(why)

    def _end(self, error: BaseException) -> None:
        with self._lock:
            # What a source says of the file is worth more than that ranges are not to be had.
            if self._error is None or isinstance(error, FreeholdError):
                self._error = error
        self._ended.set()
