"""Which limits apply to whom, with the cells of each."""

from collections.abc import Mapping

from freehold.policy.cells import Cells, Counter
from freehold.policy.quotas import amounts
from freehold.record.cost import Subject, subjects
from freehold.record.entry import Entry
from freehold.record.windows import WINDOWS, number
from freehold.store.snapshot import Limit

Limits = Mapping[str, tuple[Limit, ...]]
"""By ``SCOPE:NAME``."""
Plan = tuple[tuple[Limit, Counter], ...]
Numbers = tuple[int, ...]
"""The number of the present window of each kind, in the order of ``WINDOWS``."""
Charge = tuple[Counter, int, int]
"""(cells, number of the window, amount)."""


class Plans:
    """The limits in force, looked up by subjects; cells are found once and remembered."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells
        self._limits: Limits = {}
        self._plans: dict[tuple[Subject, ...], Plan] = {}
        self._numbers: tuple[int, Numbers] = (-1, ())

    def use(self, limits: Limits) -> None:
        """Work with these limits from now on."""
        if limits is not self._limits:
            self._limits = limits
            self._plans.clear()

    def of(self, who: tuple[Subject, ...]) -> Plan:
        """Return what applies; not while holding the cells' lock."""
        found = self._plans.get(who)
        if found is None:
            applying = (limit for s, n in who for limit in self._limits.get(f"{s}:{n}", ()))
            found = tuple((limit, self._cells.counter(limit)) for limit in applying)
            self._plans[who] = found
        return found

    def numbers(self, at: float) -> Numbers:
        """Return the window of each kind that a moment lies in."""
        minute = int(at // 60)
        if self._numbers[0] != minute:
            self._numbers = (minute, tuple(number(window, at) for window in WINDOWS))
        return self._numbers[1]

    def charges(self, entry: Entry) -> list[Charge]:
        """Return what an entry adds to which cells; not while holding the cells' lock."""
        if entry.admitted is None:
            return []
        who = subjects(entry.key, entry.principal, entry.team, entry.deployment)
        numbers = self.numbers(entry.admitted)
        used = amounts(entry.tokens_in, entry.tokens_out, entry.cost)
        return [
            (counter, numbers[counter.window], used[counter.measure])
            for limit, counter in self.of(who)
            if limit.measure != "concurrency"
        ]
