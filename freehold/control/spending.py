"""Bring the shared numbers behind limits in line with the durable record.

The record is the truth: the tables, and what journals have gained since. Cells are set from it when
a limit is new, when nothing ran or the machine has restarted, when a board is damaged, and when the
clock has gone back to a window that the cells no longer hold.
"""

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import psutil

from freehold.control.limits import by_subject
from freehold.errors import Broken, Unavailable
from freehold.policy.cells import CLOSED, LOST, Cells, Counter
from freehold.policy.plans import Plans
from freehold.policy.settle import journals, read_lines, recover
from freehold.record.cost import subjects
from freehold.record.entry import Entry
from freehold.record.ledger import forget_minutes, take_in_journals
from freehold.record.windows import ends, newest, number, period
from freehold.store.database import Database
from freehold.store.snapshot import Limit
from freehold.store.spending import journal_offsets, newest_period, spent

_LATE = 60.0
"""Seconds for which a request that came in a window before still finds it open."""
MINUTES_KEPT = 2 * 86400.0
"""Seconds by which the clock may go back and still find what was spent in a minute."""
_AT_ONCE = 100
_TRIES = 20
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
Lines = list[tuple[int, Entry]]
"""(+1 to add or -1 to take away, entry)."""


class Spending:
    """Control's hand on the cells."""

    def __init__(
        self,
        database: Database,
        audit: Path,
        folder: Path,
        gateways: int,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._audit = audit
        self._folder = folder
        self._gateways = gateways
        self._clock = clock
        self._cells: Cells | None = None
        self._limits: list[Limit] = []
        self._watched = 0.0
        self._read_last: float | None = None
        # The lock of the cells is one between processes: threads of one would share it.
        self._alone = threading.RLock()

    def start(self, limits: Sequence[Limit], stop_gateways: Callable[[], None]) -> None:
        """Open the boards and put them right; new ones where nobody uses the old ones.

        Where these are damaged nobody may go on with them: ``stop_gateways`` is called, and what
        gateways did is counted from their journals.
        """
        with self._alone:
            self.close()
            self._limits = list(limits)
            cells = self._used()
            if cells is None:
                stop_gateways()
                self._cells = cells = self._new()
                self._count(limits)
                cells.declare_ready(_boot())
            else:  # what is closed there is opened by watch, when gateways know of it
                self._cells = cells

    def close(self) -> None:
        """Let go of the boards."""
        if self._cells is not None:
            self._cells.close()
            self._cells = None

    def is_damaged(self) -> bool:
        """Say whether the boards are not what they were."""
        return self._cells is not None and not self._cells.is_whole()

    def forget(self, limits: Iterable[Limit]) -> None:
        """Close the cells of limits that are new or gone: what they hold may be of another time."""
        if self._cells is None:
            return
        with self._alone:
            counters = [self._cells.counter(limit) for limit in _counted(limits)]
            with self._cells.lock():
                for counter in counters:
                    counter.end()

    def use(self, limits: Sequence[Limit]) -> None:
        """Count for these limits, which every gateway knows by now."""
        if self._cells is None:
            return
        with self._alone:
            self._limits = list(limits)
            self._count(limits)

    async def watch(self, *, told: bool) -> None:
        """Count again for windows that the clock came back to, before anybody needs them.

        ``told`` says that every gateway knows the limits in force: then closed ones are opened.
        Looking is a moment; counting reads journals, which a thread of its own does.
        """
        now = self._clock()
        if self._cells is None or abs(now - self._watched) < 1.0:
            return
        if not self._alone.acquire(blocking=False):
            return
        try:
            self._watched = now
            lost = self._lost(now, (LOST, CLOSED) if told else (LOST,))
        finally:
            self._alone.release()
        if lost:
            await asyncio.to_thread(self._count_alone, lost)

    def purge(self, pause: float = 0.0) -> int:
        """Delete the minutes that no limit can come back to; return how many rows that were.

        Called every so often. Between two subjects others get ``pause`` seconds to write.
        """
        before, self._read_last = oldest_kept(self._read_last, self._clock()), self._clock()
        return 0 if before is None else forget_minutes(self._database, before, pause)

    def view(self, limit: Limit) -> tuple[int, int]:
        """Return (spent, reserved) of a limit in its present window."""
        if self._cells is None:
            return self._recorded(limit), 0
        with self._alone:
            counter = self._cells.counter(limit)
            with self._cells.lock():
                if limit.measure == "concurrency":
                    return 0, counter.reserved(0)
                at = counter.look(number(limit.window, self._clock()))
                return (counter.spent[at + 1], counter.reserved(at)) if at >= 0 else (0, 0)

    def _recorded(self, limit: Limit) -> int:
        if limit.measure == "concurrency":
            return 0
        window = number(limit.window, self._clock())
        with self._database.reading() as connection:
            return _of(
                limit, spent(connection, limit.scope, limit.name, period(limit.window, window))
            )

    def _used(self) -> Cells | None:
        """Open the boards that gateways work with; None when there are none, or damaged ones."""
        try:
            cells = Cells(self._folder, 0, self._gateways)
        except Broken:
            return None
        plans = Plans(cells)
        plans.use(by_subject(self._limits))
        if cells.ready == _boot():
            recover(cells, self._audit, plans.charges)
            with cells.lock():
                if any(cells.life(slot) for slot in range(cells.slots)):
                    return cells
        cells.close()
        return None

    def _new(self) -> Cells:
        for path in self._folder.glob("*.board"):
            path.unlink()
        cells = Cells(self._folder, 0, self._gateways)
        self._await_end(cells)
        return cells

    def _await_end(self, cells: Cells) -> None:
        for _ in range(500):
            with cells.lock():
                if all(cells.is_free(slot) for slot in range(1, cells.slots)):
                    return
            time.sleep(0.01)
        raise Unavailable("unavailable.limits", "gateways of another life do not end: stop them")

    def _open(self) -> Cells:
        assert self._cells is not None
        return self._cells

    def _lost(self, now: float, states: Collection[int]) -> list[Limit]:
        """Return the limits whose present or coming window the cells do not have."""
        cells = self._open()
        counters = [(limit, cells.counter(limit)) for limit in _counted(self._limits)]
        found = []
        with cells.lock():
            for limit, counter in counters:
                windows = (number(limit.window, at) for at in (now, _next(limit, now)))
                if any(counter.look(window) in states for window in windows):
                    found.append(limit)
        return found

    def _count_alone(self, limits: Iterable[Limit]) -> None:
        with self._alone:
            if self._cells is not None:
                self._count(limits)

    def _count(self, limits: Iterable[Limit]) -> None:
        cells = self._open()
        take_in_journals(self._database, self._audit)
        left = iter(_counted(limits))
        while some := list(islice(left, _AT_ONCE)):
            counters = [(limit, cells.counter(limit)) for limit in some]
            for _ in range(_TRIES):
                if self._set(counters):
                    break
            else:
                raise Unavailable("unavailable.limits", "journals grow too fast to be counted")

    def _set(self, counters: Sequence[tuple[Limit, Counter]]) -> bool:
        """Set cells from the record; False when a journal has appeared meanwhile."""
        cells = self._open()
        known = {path.name: cells.view(f"journal:{path.name}")[1] for path in self._live()}
        now = self._clock()
        with cells.lock(), self._database.transaction() as connection:
            if {path.name for path in self._live()} - set(known):
                return False
            lines = self._beside(journal_offsets(connection), known)
            for limit, counter in counters:
                near = _near(limit, now)
                for window in self._missing(connection, limit, counter, near):
                    stamp = period(limit.window, window)
                    amount = _of(limit, spent(connection, limit.scope, limit.name, stamp))
                    amount += _sum(lines, limit, window)
                    counter.begin(window, amount, near)
        return True

    def _missing(
        self, connection: Any, limit: Limit, counter: Counter, near: Sequence[int]
    ) -> Sequence[int]:
        """Return the windows to be set: those near that are lost, or of a new one also the last."""
        if counter.look(near[0]) != CLOSED:
            return [window for window in near if counter.look(window) == LOST]
        length = len("2026-01-31T23:59") if limit.window == "minute" else len("2026-01-31")
        stamp = newest_period(connection, limit.scope, limit.name, length)
        return sorted({*near, max(near[-1], newest(limit.window, stamp))})

    def _live(self) -> list[Path]:
        """Return the journals of gateways that run: what those settle, they settle themselves."""
        cells = self._open()
        slots = [slot for slot in range(1, cells.slots) if cells.life(slot)]
        return [path for slot in slots for path in journals(self._audit, slot, cells.note(slot))]

    def _beside(self, taken: Mapping[str, int], settled: Mapping[str, memoryview]) -> Lines:
        """Return what tables and cells disagree on: lines that only one of them has counted."""
        found: Lines = []
        for path in self._audit.glob("gateway-*.jsonl"):
            begin = taken.get(path.name, 0)
            end = settled[path.name][0] if path.name in settled else None
            if end is None and path.stat().st_size <= begin:
                continue
            if end is not None and end < begin:
                found += [(-1, entry) for _, entry in read_lines(path, end, begin)]
            else:
                found += [(1, entry) for _, entry in read_lines(path, begin, end)]
        return found


def oldest_kept(last: float | None, now: float) -> float | None:
    """Return the moment before which recorded minutes may go; None for not now. Pure.

    ``last`` is what the clock said when this was asked before, an hour ago. A clock that jumped
    ahead since then has left the minutes it will come back to within reach of that.
    """
    return None if last is None else min(last, now) - MINUTES_KEPT


def _near(limit: Limit, now: float) -> list[int]:
    """Return the windows that requests may be let in to: a late one's, the present, the coming."""
    moments = (now - _LATE, now, _next(limit, now))
    return sorted({number(limit.window, at) for at in moments})


def _next(limit: Limit, now: float) -> float:
    """Return when the coming window begins."""
    return now if limit.window == "total" else ends(limit.window, now)


def _counted(limits: Iterable[Limit]) -> list[Limit]:
    return [limit for limit in limits if limit.measure != "concurrency"]


def _of(limit: Limit, sums: tuple[int, int, int, int]) -> int:
    requests, tokens_in, tokens_out, money = sums
    named = {"requests": requests, "tokens_in": tokens_in, "tokens_out": tokens_out}
    return {**named, "tokens": tokens_in + tokens_out, "money": money}[limit.measure]


def _sum(lines: Lines, limit: Limit, window: int) -> int:
    total = 0
    for sign, entry in lines:
        who = subjects(entry.key, entry.principal, entry.team, entry.deployment)
        if entry.admitted is None or (limit.scope, limit.name) not in who:
            continue
        if number(limit.window, entry.admitted) == window:
            total += sign * _of(limit, (1, entry.tokens_in, entry.tokens_out, entry.cost))
    return total


def _boot() -> int:
    """Return a number for this start of the machine: shared numbers do not outlive it."""
    try:
        text = _BOOT_ID.read_text(encoding="ascii")
    except OSError:
        text = str(round(psutil.boot_time() / 60))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest()) | 1
