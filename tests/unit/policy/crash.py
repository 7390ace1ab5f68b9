"""Die at a line of our code, for ``test_cells.py``: ``python -m tests.unit.policy.crash DIR STEP``.

For each number of lines a child starts a life in the slot of gateway 0, serves requests like one,
and is killed there; then the parent settles what it left and looks whether the numbers are right.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from freehold.identity.keys import Principal
from freehold.policy.budgets import Budgets
from freehold.policy.cells import Cells
from freehold.policy.quotas import Size
from freehold.policy.settle import recover, take_slot
from freehold.record.entry import Entry, encode
from freehold.record.windows import number
from freehold.store.snapshot import Limit, Route

NOW = 1_769_860_800.0
ANN = Principal(name="ann", role="developer", key="k", team="t")
ROUTE = Route(
    deployment="d", engine="e", place="local", task="chat", state="ready", price_out=1_000_000
)
LIMITS = {
    "team:t": tuple(
        Limit(scope="team", name="t", measure=measure, window=window, amount=10**9)
        for measure, window in (("tokens", "minute"), ("money", "total"), ("requests", "day"))
    ),
    "principal:ann": (
        Limit(scope="principal", name="ann", measure="concurrency", window="total", amount=4),
    ),
}


def budgets(folder: Path, slot: int) -> tuple[Cells, Budgets]:
    cells = Cells(folder / "quotas", slot, 4)
    cells.declare_ready(1)
    made = Budgets(cells, folder / "audit", lambda: NOW, 4096)
    made.plans.use(LIMITS)
    return cells, made


def serve(made: Budgets, journal: Path, name: str, tokens: int) -> None:
    entry = Entry(id=name, at=NOW, action="completion:run", principal="ann", key="k")
    size = Size(prompt=10, answer=tokens + 5)
    held = made.reserve(ANN, size, entry, [ROUTE], LIMITS)
    entry.attempts, entry.deployment, entry.first_token_ms = 1, "d", 1.0
    entry.tokens_in, entry.tokens_out = 7, tokens
    made.close(held, failed=False)
    with journal.open("ab") as file:
        file.write(encode(entry))
    made.settle([(entry, journal.name, journal.stat().st_size)])


def child(folder: Path, lines: int) -> None:
    left = lines

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if "/freehold/policy/" not in frame.f_code.co_filename:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    cells, made = budgets(folder, 1)
    assert take_slot(cells, folder / "audit", made.plans.charges, lines)
    journal = folder / "audit" / f"gateway-0-{lines}.jsonl"
    for request in range(2):
        serve(made, journal, f"r{lines}-{request}", 3 + request)
    sys.settrace(None)
    os._exit(9)


def take(folder: Path, sums: list[int]) -> None:
    """Add up what journals charge (tokens, money, requests), and make them gone."""
    for path in (folder / "audit").iterdir():
        for line in path.read_bytes().splitlines():
            used = int(line.split(b'"tokens_out":')[1].split(b",")[0])
            for at, amount in enumerate((used + 7, used, 1)):
                sums[at] += amount
        path.unlink()


def main(folder: Path, step: int) -> None:
    (folder / "audit").mkdir()
    cells, made = budgets(folder, 0)
    plan = made.plans.of((("principal", "ann"), ("team", "t")))
    for limit, counter in plan:
        if limit.measure != "concurrency":
            counter.begin(number(limit.window, NOW), 0)
    lines, wanted = 0, [0, 0, 0]
    while True:
        lines += step
        pid = os.fork()
        if pid == 0:
            child(folder, lines)
        status = os.waitpid(pid, 0)[1]
        recover(cells, folder / "audit", made.plans.charges)
        with cells.lock():
            found = [c.spent[1] for limit, c in plan if limit.measure != "concurrency"]
            held = [counter.reserved(0) for _, counter in plan]
        take(folder, wanted)
        assert found == wanted, f"killed at line {lines}: {found} is counted, {wanted} recorded"
        assert not any(held), f"killed at line {lines}: {held} stays reserved"
        if os.WIFEXITED(status):
            break
    assert wanted[2] > 2, "nobody got far"
    cells.close()
    print(lines, *wanted)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
