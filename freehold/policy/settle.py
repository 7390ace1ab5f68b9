"""Move what requests used into the shared numbers, exactly once, also for gateways that died.

A gateway settles each record when it is durable, in the order of its journal, together with how far
the journal is settled. What a dead one left is read from its journals, from there on.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from freehold.policy.cells import Cells, Write
from freehold.policy.plans import Charge
from freehold.record.entry import Entry

Charges = Callable[[Entry], Sequence[Charge]]
Tail = tuple[int, memoryview, list[tuple[int, Sequence[Charge]]]]
"""A journal's row, its cells, and the ends and charges of lines that are not settled."""


def settle(cells: Cells, charges: Sequence[Charge], row: int, offset: memoryview, end: int) -> None:
    """Count a journal's line that ends at ``end``, unless it is; while holding the lock."""
    if end <= offset[0]:
        return
    if not charges:
        offset[0] = end
        return
    cells.write([*writes(charges), (offset, row, 0, end)])


def writes(charges: Sequence[Charge]) -> list[Write]:
    """Return what charges come to; windows that nobody remembers are left to the record."""
    found: list[Write] = []
    for counter, window, amount in charges:
        at = counter.find(window)
        if at >= 0:
            value = counter.spent[at + 1] + amount
            found.append((counter.spent, counter.row, at + 1, value))
    return found


def recover(cells: Cells, audit: Path, charges: Charges) -> None:
    """Settle and forget every gateway that is dead."""
    with cells.lock():
        gone = cells.dead()
    for slot, life, note in gone:
        tails = [_tail(cells, path, charges) for path in journals(audit, slot, note)]
        with cells.lock():
            if cells.life(slot) != life or not cells.is_free(slot):
                continue
            for row, offset, lines in tails:
                for end, due in lines:
                    settle(cells, due, row, offset, end)
            cells.clear(slot)


def take_slot(cells: Cells, audit: Path, charges: Charges, life: int) -> bool:
    """Begin a life in this process's slot; False while an earlier holder still runs."""
    note = "\n".join(sorted(path.name for path in journals(audit, cells.slot, "")))
    recover(cells, audit, charges)
    with cells.lock():
        return cells.occupy(note, life)


def journals(audit: Path, slot: int, note: str) -> list[Path]:
    """Return the journals of a slot that its present holder wrote: those not in its note."""
    before = set(note.split("\n"))
    return [path for path in audit.glob(f"gateway-{slot - 1}-*.jsonl") if path.name not in before]


def read_lines(path: Path, begin: int, end: int | None = None) -> Iterator[tuple[int, Entry]]:
    """Yield (where it ends, entry) of the whole lines in a part of a journal."""
    with path.open("rb") as file:
        file.seek(begin)
        data = file.read() if end is None else file.read(max(0, end - begin))
    at = begin
    for line in data[: data.rfind(b"\n") + 1].splitlines(keepends=True):
        at += len(line)
        try:
            yield at, msgspec.json.decode(line, type=Entry)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue  # torn by a full disk: never acknowledged


def _tail(cells: Cells, path: Path, charges: Charges) -> Tail:
    row, offset = cells.view(f"journal:{path.name}")
    return row, offset, [(end, charges(entry)) for end, entry in read_lines(path, offset[0])]
