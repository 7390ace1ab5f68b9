"""Circuits: the breakers of all replicas, shared by all processes of a home.

Each is one 8-byte word on a board, so that reading it costs next to nothing and a kill at any
moment leaves it whole; it is changed while the board is locked. A word holds a few bits of who it
is about: an engine that was started again listens elsewhere, and starts with a closed circuit.
"""

import os
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from freehold.runtime import breaker
from freehold.runtime.breaker import CLOSED, STATES, Breaker
from freehold.store.board import Board

ROWS = 4096
"""Replicas come and go without end, so they share rows by a hash. Two at once in one row take each
other's word for an old one and start afresh, which only makes them less careful."""

_STATE, _OPENINGS, _SCORE, _UNTIL = 2, 3, 6, 42
"""Bits of a word, from its lowest; the mark of the replica is in the ten above them."""
_MARK_AT = _STATE + _OPENINGS + _SCORE + _UNTIL


def open_board(directory: Path) -> Board:
    """Open the board of a home, for any process: its only slot is everybody's."""
    path = directory / "circuits.board"
    board = Board(path, 0, 1, rows=ROWS)
    # Every page is there from now on: a disk that fills up later must not end the process.
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with suppress(OSError), path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return board


class Circuits:
    """Asked before and told after every request to a replica, which is known by its id and URL.

    ``clock`` gives seconds since the epoch.
    """

    def __init__(self, board: Board, clock: Callable[[], float]) -> None:
        self._board = board
        self._clock = clock
        self._places: dict[tuple[str, str], tuple[int, int]] = {}

    def admits(self, replica: str, url: str) -> bool:
        """Say whether it may be asked now; where the circuit is open, one at a time may probe."""
        row, mark = self._place(replica, url)
        if self._read(row, mark).state == "closed":
            return True
        with self._board.lock():
            now, found = self._now(), self._read(row, mark)
            if not breaker.admits(found, now):
                return False
            self._board.put(row, _write(breaker.asked(found, now), mark))
            return True

    def answered(self, replica: str, url: str) -> None:
        """Note an answer, also one that refuses what the client wants."""
        row, mark = self._place(replica, url)
        if self._read(row, mark) is not CLOSED:
            self._change(row, mark, breaker.answered)

    def failed(self, replica: str, url: str) -> None:
        """Note a failure."""
        now = self._now()
        self._change(*self._place(replica, url), lambda found: breaker.failed(found, now))

    def busy(self, replica: str, url: str, seconds: float) -> None:
        """Note that it has too much to do for so long."""
        now, wait = self._now(), int(seconds * 1000)
        self._change(*self._place(replica, url), lambda found: breaker.busy(found, now, wait))

    def dropped(self, replica: str, url: str) -> None:
        """Note that a request ended without a verdict on the replica."""
        row, mark = self._place(replica, url)
        if self._read(row, mark).state == "half-open":
            now = self._now()
            self._change(row, mark, lambda found: breaker.dropped(found, now))

    def state(self, replica: str, url: str) -> str:
        """Return ``closed``, ``open``, ``half-open`` or ``busy``."""
        found = self._read(*self._place(replica, url))
        over = found.state == "busy" and breaker.admits(found, self._now())
        return "closed" if over else found.state

    def is_failing(self, replica: str, url: str) -> bool:
        """Say whether it has failed lately more than answers have made up for."""
        return self._read(*self._place(replica, url)).score >= breaker.FAILURE

    def close(self) -> None:
        """Let go of the board; what is on it stays."""
        self._board.close()

    def _change(self, row: int, mark: int, step: Callable[[Breaker], Breaker]) -> None:
        with self._board.lock():
            self._board.put(row, _write(step(self._read(row, mark)), mark))

    def _read(self, row: int, mark: int) -> Breaker:
        word = self._board.cell(row)
        return CLOSED if not word or word >> _MARK_AT != mark else _unpack(word)

    def _place(self, replica: str, url: str) -> tuple[int, int]:
        found = self._places.get((replica, url))
        if found is None:
            if len(self._places) > ROWS:
                self._places.clear()
            hashed = zlib.crc32(f"{replica} {url}".encode())
            found = self._board.row(str(hashed % ROWS)), hashed >> 22
            self._places[replica, url] = found
        return found

    def _now(self) -> int:
        return int(self._clock() * 1000)


def _write(found: Breaker, mark: int) -> int:
    if found == CLOSED:
        return 0
    word = mark << _UNTIL | found.until
    word = word << _SCORE | found.score
    word = word << _OPENINGS | found.openings
    return word << _STATE | STATES.index(found.state)


def _unpack(word: int) -> Breaker:
    state = STATES[word & (1 << _STATE) - 1]
    word >>= _STATE
    openings = word & (1 << _OPENINGS) - 1
    word >>= _OPENINGS
    score = word & (1 << _SCORE) - 1
    return Breaker(state, score, openings, word >> _SCORE & (1 << _UNTIL) - 1)
