"""One gateway that serves without a pause: ``python -m tests.unit.policy.hammer DIR SLOT COUNT``.

Prints how many requests were let in and how many refused.
"""

import sys
from contextlib import suppress
from pathlib import Path

from freehold.errors import OverQuota
from freehold.policy.settle import take_slot
from tests.unit.policy.crash import budgets, serve


def main(folder: Path, slot: int, count: int) -> None:
    cells, made = budgets(folder, slot)
    assert take_slot(cells, folder / "audit", made.plans.charges, slot)
    journal = folder / "audit" / f"gateway-{slot - 1}-1.jsonl"
    served = 0
    for number in range(count):
        with suppress(OverQuota):
            serve(made, journal, f"{slot}-{number}", 3)
            served += 1
    print(served, flush=True)
    cells.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
