"""The meter: what a process counts, and the sum over all processes of a home.

Counting costs well below a microsecond and never fails. How many series there can be is bounded:
beyond ``LIMIT`` of a family, further ones are counted together under ``OTHER``. Gauges are told of
what an operator has named, so there are only as many.
"""

import math
import operator
from bisect import bisect_left
from pathlib import Path

import msgspec

from freehold.record.families import BY_NAME, STAMP, Family
from freehold.store.cells import Cells, clear, read

LIMIT = 1000
OTHER = "other"
Labels = tuple[str, ...]


class Sample(msgspec.Struct, frozen=True):
    """One series: its labels' values and its number; for a histogram its buckets and its sum."""

    labels: Labels
    numbers: list[float]


class Meter:
    """Counts for one process. Gauges begin anew with it, everything else goes on."""

    def __init__(self, directory: Path) -> None:
        self._cells = Cells(directory, STAMP)
        self._numbers = self._cells.numbers
        self._places: dict[tuple[str, Labels], int] = {}
        self._count: dict[str, int] = {}
        for name, (at, _) in self._cells.known().items():
            family, labels = _parse(name)
            if family.kind == "gauge":
                self._numbers[at] = math.nan
            else:
                self._places[family.name, labels] = at
                self._count[family.name] = self._count.get(family.name, 0) + 1

    @property
    def shared(self) -> bool:
        """Say whether what is counted here is in the sum."""
        return self._cells.shared

    def add(self, family: Family, labels: Labels = (), amount: float = 1.0) -> None:
        """Add to a counter or gauge."""
        at = self._places.get((family.name, labels))
        if at is None and (at := self._place(family, labels)) is None:
            return
        self._numbers[at] += amount

    def observe(self, family: Family, labels: Labels, value: float) -> None:
        """Count a value into a histogram."""
        at = self._places.get((family.name, labels))
        if at is None and (at := self._place(family, labels)) is None:
            return
        self._numbers[at + bisect_left(family.buckets, value)] += 1.0
        self._numbers[at + len(family.buckets) + 1] += value

    def place(self, family: Family, labels: Labels) -> int | None:
        """Return where a series is, for ``bump`` and ``drop``; None where there is no room."""
        at = self._places.get((family.name, labels))
        return self._place(family, labels) if at is None else at

    def bump(self, at: int | None, amount: float = 1.0) -> None:
        """Add to the counter at a place."""
        if at is not None:
            self._numbers[at] += amount

    def drop(self, at: int | None, buckets: tuple[float, ...], value: float) -> None:
        """Count a value into the histogram at a place, which has these buckets."""
        if at is not None:
            self._numbers[at + bisect_left(buckets, value)] += 1.0
            self._numbers[at + len(buckets) + 1] += value

    def put(self, family: Family, labels: Labels, value: float) -> None:
        """Set a gauge."""
        at = self._places.get((family.name, labels))
        if at is None and (at := self._place(family, labels)) is None:
            return
        self._numbers[at] = value

    def keep_only(self, family: Family, labels: set[Labels]) -> None:
        """Show no other series of a gauge any more: what they told about is gone."""
        for name, known in self._places:
            if name == family.name and known not in labels:
                self._numbers[self._places[name, known]] = math.nan

    def close(self) -> None:
        """Stop counting; what was counted stays."""
        self._numbers.release()
        self._cells.close()

    def _place(self, family: Family, labels: Labels) -> int | None:
        """Find room for a series that is new to this process, or where it is counted with others.

        Only what has room is remembered, so a flood of names costs time but no memory.
        """
        assert len(labels) == len(family.labels), family.name
        if self._count.get(family.name, 0) >= LIMIT and family.kind != "gauge":
            labels = (OTHER,) * len(labels)
            if (family.name, labels) in self._places:
                return self._places[family.name, labels]
        at = self._cells.place(msgspec.json.encode((family.name, *labels)), family.size)
        if at is not None:
            self._places[family.name, labels] = at
            self._count[family.name] = self._count.get(family.name, 0) + 1
            if math.isnan(self._numbers[at]):
                self._numbers[at] = 0.0
        return at


def gather(directory: Path) -> dict[str, list[Sample]]:
    """Return the whole house's series by family, whichever process counted them.

    What a dead process counted stays in the sum; its gauges are not true any more.
    """
    joined: dict[bytes, list[float]] = {}
    for reading in read(directory, STAMP):
        for name, numbers in reading.numbers.items():
            family, _ = _parse(name)
            if math.isnan(numbers[0]) or (family.kind == "gauge" and not reading.held):
                continue
            join = max if family.highest else operator.add
            there = joined.get(name)
            joined[name] = numbers if there is None else list(map(join, there, numbers))
    found: dict[str, list[Sample]] = {}
    for name in sorted(joined):
        family, labels = _parse(name)
        found.setdefault(family.name, []).append(Sample(labels, joined[name]))
    return found


def counted_since(directory: Path) -> float:
    """Return when the house began to count, in epoch seconds; 0 when it has not."""
    return min((reading.born for reading in read(directory, STAMP)), default=0.0)


def forget_the_dead(directory: Path) -> None:
    """Begin anew: a house that starts from nothing shows no series of long ago."""
    clear(directory)


def _parse(name: bytes) -> tuple[Family, Labels]:
    family, *labels = msgspec.json.decode(name, type=list[str])
    return BY_NAME[family], tuple(labels)
