"""How many bytes may be brought in, by whom: what is here, and what is on its way."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec

from freehold.errors import Exhausted
from freehold.models.source import Progress
from freehold.settings import Registry as Settings
from freehold.store import credentials, versions
from freehold.store.blobs import Blobs
from freehold.store.checks import checks
from freehold.store.database import Database
from freehold.store.versions import Artifact

HOME = "home"


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """What a subject (``home``, ``principal:NAME``, ``team:NAME``) has, and may have; 0 is any."""

    subject: str
    bytes: int
    quota: int


class Room:
    """The quotas of a home. Bytes under way count as if they were here already."""

    def __init__(self, settings: Settings, database: Database, blobs: Blobs) -> None:
        self._settings = settings
        self._database = database
        self._blobs = blobs
        self._lock = threading.Lock()
        self._coming: dict[int, tuple[frozenset[str], int]] = {}

    def uses(self) -> list[Use]:
        """Return what the home takes on disk, and what each subject with a quota has here."""
        held = self._held()
        return [Use(subject=HOME, bytes=self._blobs.stored(), quota=self._settings.quota)] + [
            Use(subject=subject, bytes=sum(held.get(subject, {}).values()), quota=quota)
            for subject, quota in sorted(self._settings.quotas.items())
        ]

    @contextmanager
    def claim(self, by: str) -> Iterator["Claim"]:
        """Yield a claim on room for one arrival; it ends with the block."""
        limits = self._limits(by)
        held = self._held() if limits else {}
        lost = self._damaged() if limits else set()
        # What is damaged is about to be replaced, if it is what comes: it takes no room twice.
        free = {
            subject: quota
            - sum(size for digest, size in held.get(subject, {}).items() if digest not in lost)
            for subject, quota in limits.items()
        }
        if HOME in limits:
            back = {d: n for each in held.values() for d, n in each.items() if d in lost}
            free[HOME] = limits[HOME] - self._blobs.stored() + sum(back.values())
        claim = Claim(self, limits, free)
        try:
            yield claim
        finally:
            with self._lock:
                self._coming.pop(id(claim), None)

    def left(self, by: str, waiting: int) -> int | None:
        """Return how many bytes ``by`` may still send to our registry, None for any number.

        ``waiting`` bytes were sent there, by whomever, and are no version yet.
        """
        limits = self._limits(by)
        held = self._held() if limits.keys() - {HOME} else {}
        left = [
            quota - self._blobs.stored() - waiting
            if subject == HOME
            else quota - sum(held.get(subject, {}).values())
            for subject, quota in limits.items()
        ]
        return max(0, min(left)) if left else None

    def admits(self, by: str, artifacts: Sequence[Artifact]) -> None:
        """Raise ``Exhausted`` when a version of these files, stored already, would be too much."""
        limits = self._limits(by)
        held = self._held() if limits.keys() - {HOME} else {}
        for subject, quota in limits.items():
            if subject == HOME:
                have = self._blobs.stored()
            else:
                new = {artifact.digest: artifact.bytes for artifact in artifacts}
                have = sum((held.get(subject, {}) | new).values())
            if have > quota:
                raise too_much(subject, have, quota)

    def take(
        self, claim: "Claim", limits: Mapping[str, int], free: Mapping[str, int], size: int
    ) -> None:
        """Count ``size`` bytes as coming, or raise ``Exhausted``; others' claims count too."""
        with self._lock:
            for subject, quota in limits.items():
                others = sum(
                    coming
                    for key, (subjects, coming) in self._coming.items()
                    if key != id(claim) and subject in subjects
                )
                if size + others > free[subject]:
                    raise too_much(subject, quota - free[subject] + size + others, quota)
            self._coming[id(claim)] = frozenset(limits), size

    def _limits(self, by: str) -> dict[str, int]:
        limits = {HOME: self._settings.quota} if self._settings.quota else {}
        quotas = self._settings.quotas
        subjects = [f"principal:{by}"]
        if any(subject.startswith("team:") for subject in quotas):
            subjects += [f"team:{team}" for team in self._teams().get(by, ())]
        return limits | {s: quotas[s] for s in subjects if s in quotas}

    def _teams(self) -> dict[str, set[str]]:
        with self._database.reading() as connection:
            rows = credentials.keys(connection)
        teams: dict[str, set[str]] = {}
        for row in rows:
            if row.team is not None:
                teams.setdefault(row.principal, set()).add(row.team)
        return teams

    def _damaged(self) -> set[str]:
        with self._database.reading() as connection:
            return {check.digest for check in checks(connection).values() if check.damage}

    def _held(self) -> dict[str, dict[str, int]]:
        """Return bytes by digest, by subject."""
        with self._database.reading() as connection:
            by_principal = versions.holdings(connection)
        teams = self._teams()
        found: dict[str, dict[str, int]] = {}
        for principal, held in by_principal.items():
            for subject in (
                f"principal:{principal}",
                *(f"team:{t}" for t in teams.get(principal, ())),
            ):
                found.setdefault(subject, {}).update(held)
        return found


class Claim:
    """Room for one arrival."""

    def __init__(self, room: Room, limits: Mapping[str, int], free: Mapping[str, int]) -> None:
        self._room = room
        self._limits = limits
        self._free = free
        self._size = -1

    def need(self, size: int) -> None:
        """Say how many bytes this will be, as far as is known; ``Exhausted`` when too many."""
        if self._limits and size > self._size:
            self._room.take(self, self._limits, self._free, size)
            self._size = size

    def watch(self, progress: Progress) -> Progress:
        """Return a progress that ends the work once it is known to bring too much."""

        def report(stage: str, done: int, total: int) -> None:
            if stage != "verify":
                self.need(max(done, total))
            progress(stage, done, total)

        return report


def too_much(subject: str, size: int, quota: int) -> Exhausted:
    """Return the refusal of what would take a subject over its quota."""
    whose = "this home" if subject == HOME else subject
    return Exhausted(
        "quota.bytes",
        f"the models of {whose} would take {size} bytes, and {quota} are allowed: remove some, or "
        "ask an administrator to raise it in [registry]; nothing was kept",
    )
