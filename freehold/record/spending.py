"""What records charge, added up for the tables."""

from collections.abc import Iterable

from freehold.record.cost import subjects
from freehold.record.entry import Entry
from freehold.record.windows import DAY, MINUTE, period
from freehold.store.spending import SpendingRow


def spending(entries: Iterable[Entry]) -> list[SpendingRow]:
    """Add up what the entries charge, by subject, day and minute of admission."""
    sums: dict[tuple[str, str, str], list[int]] = {}
    for entry in entries:
        if entry.admitted is None:
            continue
        amounts = (1, entry.tokens_in, entry.tokens_out, entry.cost)
        periods = (
            period("day", int(entry.admitted // DAY)),
            period("minute", int(entry.admitted // MINUTE)),
        )
        for subject in subjects(entry.key, entry.principal, entry.team, entry.deployment):
            for name in periods:
                found = sums.setdefault((*subject, name), [0, 0, 0, 0])
                for at, amount in enumerate(amounts):
                    found[at] += amount
    return [
        SpendingRow(
            scope=scope, name=name, period=when,
            requests=found[0], tokens_in=found[1], tokens_out=found[2], money=found[3],
        )
        for (scope, name, when), found in sums.items()
    ]  # fmt: skip
