"""The shared numbers behind limits: what is spent, and what running requests have reserved.

Two boards under ``HOME/run/quotas``. ``spent`` outlives processes: a row for a limit holds its last
windows as pairs (number of the window, amount), a row for a journal how far it is settled. ``held``
has cells for each gateway, which count for nothing once it is dead.

Everything happens under one lock. A settlement moves several cells of ``spent`` and the journal's
offset as one step: it is written down in full, then done, and whoever takes the lock after a kill
in between does it again, which changes nothing that was done. See docs/decisions/0008.
"""

import fcntl
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from freehold.errors import Unavailable
from freehold.policy.quotas import MEASURES
from freehold.record.windows import WINDOWS
from freehold.store.board import Board, Lock
from freehold.store.snapshot import Limit

RING = 4
"""Windows of a limit that are remembered; older ones are in the record."""
CLOSED, LOST, UNOPENED = -1, -2, -3
_PAIRS = tuple(range(0, 2 * RING, 2))
_REDO_ROWS = 48
_LEAST_SLOTS = 8

Write = tuple[memoryview, int, int, int]
"""(row's cells, row, cell, new value)."""


class Counter:
    """The cells of one limit. ``measure`` and ``window`` index what they are called after."""

    __slots__ = ("held", "measure", "own", "row", "spent", "sums", "window")

    def __init__(
        self, limit: Limit, row: int, spent: memoryview, held: memoryview, slot: int
    ) -> None:
        self.measure = MEASURES.index(limit.measure)
        self.window = WINDOWS.index(limit.window)
        self.row = row
        self.spent = spent
        self.held = held
        self.sums = tuple(held[at::RING] for at in range(RING))
        self.own = slot * RING

    def find(self, window: int) -> int:
        """Return where a window's pair is, or ``CLOSED`` or ``LOST``; opens a new one."""
        spent = self.spent
        for at in _PAIRS:
            if spent[at] == window:
                return at
        newest = max(spent[at] for at in _PAIRS)
        if newest == 0:
            return CLOSED
        return LOST if window < newest else self.begin(window, 0)

    def look(self, window: int) -> int:
        """Return where a window's pair is, ``CLOSED``, ``LOST``, or a place it would open at."""
        spent = self.spent
        newest = max(spent[at] for at in _PAIRS)
        if newest == 0:
            return CLOSED
        for at in _PAIRS:
            if spent[at] == window:
                return at
        return LOST if window < newest else UNOPENED

    def end(self) -> None:
        """Close it: nothing is remembered."""
        for at in _PAIRS:
            self.spent[at] = 0

    def begin(self, window: int, amount: int, keep: Collection[int] = ()) -> int:
        """Give a window the place of the oldest that is not to be kept; return it."""
        spent = self.spent
        at = min((at for at in _PAIRS if spent[at] not in keep), key=spent.__getitem__)
        spent[at] = 0  # first: a kill below leaves a free place, not a wrong number
        spent[at + 1] = amount
        for cell in range(at // 2, len(self.held), RING):
            self.held[cell] = 0
        spent[at] = window
        return at

    def reserved(self, at: int) -> int:
        """Return what all gateways hold of the window at a place."""
        return sum(self.sums[at // 2])

    def hold(self, at: int, amount: int) -> None:
        """Add to what this gateway holds."""
        self.held[self.own + at // 2] += amount

    def release(self) -> None:
        """Let go of the boards."""
        for view in (*self.sums, self.spent):
            view.release()


class Alone:
    """The lock over all cells; finishes first what somebody was killed in the middle of."""

    def __init__(self, lock: Lock, pending: memoryview, finish: Callable[[], None]) -> None:
        self._lock = lock
        self._pending = pending
        self._finish = finish

    def __enter__(self) -> None:
        self._lock.__enter__()
        if self._pending[0]:
            self._finish()

    def __exit__(self, *_: object) -> None:
        self._lock.__exit__()


class Cells:
    """One process's view of the boards. ``slot`` is 0 for control, N+1 for gateway N."""

    def __init__(self, folder: Path, slot: int, gateways: int) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder = folder
        self.slot = slot
        self.slots = max(_LEAST_SLOTS, 1 << gateways.bit_length())
        self._spent = Board(folder / "spent.board", 0, 2 * RING)
        self._held = Board(folder / f"held-{self.slots}.board", 0, self.slots * RING)
        self._counters: dict[tuple[str, ...], Counter] = {}
        self._views: dict[str, tuple[int, memoryview]] = {}
        self._pending = self.view("redo")[1]
        self._alone = Alone(self._spent.lock(), self._pending, self._finish)
        self._redo = [self.view(f"redo:{number}")[1] for number in range(_REDO_ROWS)]
        self._alive = [self.view(f"alive:{number}")[1] for number in range(self.slots)]
        self._recoveries = self.view("recoveries")[1]
        self._ready = self.view("ready")[1]
        self._occupied = False
        self._shared: list[memoryview] = []
        self._doors: dict[int, int] = {}

    def view(self, name: str) -> tuple[int, memoryview]:
        """Return a row of ``spent`` by name; not while holding ``lock``."""
        found = self._views.get(name)
        if found is None:
            row = self._spent.row(name)
            found = self._views[name] = (row, self._spent.view(row))
        return found

    def shared(self, name: str) -> memoryview:
        """Return a row of ``held`` by name: ``RING`` cells a gateway; not while holding it."""
        self._shared.append(self._held.view(self._held.row(name)))
        return self._shared[-1]

    def counter(self, limit: Limit) -> Counter:
        """Return the cells of a limit; not while holding ``lock``."""
        identity = (limit.scope, limit.name, limit.measure, limit.window)
        found = self._counters.get(identity)
        if found is None:
            name = "limit:" + ":".join(identity)
            row = self._spent.row(name)
            found = Counter(limit, row, self._spent.view(row), self.shared(name), self.slot)
            self._counters[identity] = found
        return found

    def lock(self) -> "Alone":
        """Hold all cells alone, every settlement whole. Never over an await."""
        return self._alone

    def write(self, writes: Sequence[Write]) -> None:
        """Set cells of ``spent`` as one step; while holding ``lock``."""
        redo, at = self._redo, 0
        if 2 * len(writes) > 2 * RING * _REDO_ROWS:
            raise Unavailable("unavailable.limits", "too many limits apply to one request")
        for _, row, cell, value in writes:
            redo[at >> 3][at & 7] = row * 8 + cell
            redo[(at + 1) >> 3][(at + 1) & 7] = value
            at += 2
        self._pending[0] = len(writes)
        for view, _, cell, value in writes:
            view[cell] = value
        self._pending[0] = 0

    @property
    def ready(self) -> int:
        """Since which start of the machine the numbers are right; 0 when they are not."""
        return self._ready[0]

    def declare_ready(self, boot: int) -> None:
        """Say that the numbers are right, since this start of the machine."""
        self._ready[0] = boot

    @property
    def recoveries(self) -> int:
        """How often a dead gateway's cells were put right."""
        return self._recoveries[0]

    def occupy(self, note: str, life: int) -> bool:
        """Take this process's slot, while holding ``lock``; False while another has it.

        ``note`` is kept for whoever recovers the slot; ``life``, not 0, tells lives apart.
        """
        door = self._door(self.slot)
        if self._alive[self.slot][0] or not _try(door):
            return False
        self._occupied = True
        os.ftruncate(door, 0)
        os.pwrite(door, note.encode(), 0)
        self._alive[self.slot][0] = life
        return True

    def dead(self) -> list[tuple[int, int, str]]:
        """Return (slot, life, note) of gateways that are gone unsettled; while holding ``lock``."""
        return [
            (slot, alive[0], self.note(slot))
            for slot, alive in enumerate(self._alive)
            if alive[0] and self.is_free(slot)
        ]

    def life(self, slot: int) -> int:
        """Return which life of a gateway a slot belongs to; 0 for none."""
        return self._alive[slot][0]

    def note(self, slot: int) -> str:
        """Return what the holder of a slot noted when it took it."""
        return os.pread(self._door(slot), 1 << 24, 0).decode()

    def is_free(self, slot: int) -> bool:
        """Say whether no process holds a slot; while holding ``lock``."""
        if slot == self.slot and self._occupied:
            return False
        door = self._door(slot)
        if not _try(door):
            return False
        fcntl.flock(door, fcntl.LOCK_UN)
        return True

    def clear(self, slot: int) -> None:
        """Forget what a slot held, and that it lives; while holding ``lock``."""
        for ring in range(RING):
            self._held.wipe(slot * RING + ring)
        self._alive[slot][0] = 0
        self._recoveries[0] += 1

    def is_whole(self) -> bool:
        """Say whether the files are still there, and of the size they were."""
        return self._spent.is_whole() and self._held.is_whole()

    def close(self) -> None:
        """Let go of the files; the numbers stay."""
        for counter in self._counters.values():
            counter.release()
        for view in (*self._shared, *(view for _, view in self._views.values())):
            view.release()
        for door in self._doors.values():
            os.close(door)
        self._spent.close()
        self._held.close()

    def _finish(self) -> None:
        words = [word for view in self._redo for word in view][: 2 * self._pending[0]]
        for address, value in zip(words[::2], words[1::2], strict=True):
            self._spent.put(address >> 3, value, address & 7)
        self._pending[0] = 0

    def _door(self, slot: int) -> int:
        if slot not in self._doors:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._doors[slot] = os.open(self.folder / f"{slot}.alive", flags, 0o600)
        return self._doors[slot]


def _try(door: int) -> bool:
    try:
        fcntl.flock(door, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def slot_of(gateway: str) -> int:
    """Return the slot of a gateway by its name, ``gateway-N``."""
    return int(gateway.rpartition("-")[2]) + 1
