"""Leases: which requests run on which replica, and how much work that is.

Requests are counted for this process, so that control unloads nothing under them. Work is shared by
all gateways of a home through a board, so that two of them do not pick the same idle replica.
"""

import os
import zlib
from collections.abc import Callable
from pathlib import Path

from freehold.store.board import Board
from freehold.store.snapshot import Target

ROWS = 4096
"""Rows of the board. Replicas come and go without end, so they share rows by a hash of their id;
that blurs only what other processes say."""

SLOTS = 65
"""Control and 64 gateways; further ones know of their own work only."""

WEIGHT = 0.1
"""Of the newest answer in the running mean of a deployment's answers."""


def open_board(directory: Path, slot: int) -> Board | None:
    """Open the board of work; whatever an earlier process of this slot left there is gone."""
    if slot >= SLOTS:
        return None
    path = directory / "work.board"
    board = Board(path, slot, SLOTS, rows=ROWS)
    # Every page is there from now on: a disk that fills up later must not end the process.
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    board.wipe()
    return board


class Leases:
    """Counts requests and work by replica. Used from one event loop."""

    def __init__(self, clock: Callable[[], float], board: Board | None = None) -> None:
        self.inflight: dict[str, int] = {}
        self.used: dict[str, float] = {}
        self._clock = clock
        self._board = board
        self._work: dict[str, int] = {}
        self._answers: dict[str, float] = {}
        self._rows: dict[str, int] = {}

    def take(self, target: Target, work: int = 1) -> None:
        """Count one request and its work on the target's replica, until it is given back."""
        self._add(target.replica, 1, work)

    def give(self, target: Target, work: int = 1) -> None:
        """Count it no more."""
        replica = target.replica
        self._add(replica, -1, -work)
        if not self.inflight[replica]:
            del self.inflight[replica], self._work[replica]

    def work(self, target: Target) -> int:
        """Return the work that waits at a replica, that of all gateways."""
        own = self._work.get(target.replica, 0)
        if self._board is None:
            return own
        row = self._row(target.replica)
        return own + max(0, self._board.total(row) - self._board.cell(row))

    def last_used(self, target: Target) -> float:
        """Return when a replica was last asked by this process, 0 for never."""
        return self.used.get(target.replica, 0.0)

    def mean_answer(self, deployment: str) -> float | None:
        """Return the running mean of tokens in a deployment's answers, None before the first."""
        return self._answers.get(deployment)

    def learn(self, deployment: str, tokens: int) -> None:
        """Take an answer's length into the running mean."""
        mean = self._answers.get(deployment, float(tokens))
        self._answers[deployment] = mean + WEIGHT * (tokens - mean)

    def forget(self, known: set[str]) -> None:
        """Drop what is remembered of replicas that are no more."""
        for replica in [name for name in self.used if name not in known]:
            if replica not in self.inflight:
                del self.used[replica]

    def _add(self, replica: str, requests: int, work: int) -> None:
        self.inflight[replica] = self.inflight.get(replica, 0) + requests
        self._work[replica] = self._work.get(replica, 0) + work
        self.used[replica] = self._clock()
        if self._board is not None:
            self._board.add(self._row(replica), work)

    def _row(self, replica: str) -> int:
        assert self._board is not None
        found = self._rows.get(replica)
        if found is None:
            if len(self._rows) > ROWS:
                self._rows.clear()
            found = self._board.row(str(zlib.crc32(replica.encode()) % ROWS))
            self._rows[replica] = found
        return found
