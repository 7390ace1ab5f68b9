"""Rows of versions in quarantine, of their releases, and of licences that were accepted."""

import msgspec
from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from freehold.store.tables import ACCEPTANCES, QUARANTINE, RELEASES


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """What one person asks and another confirms; times in epoch seconds."""

    reason: str
    asked: float
    asked_by: str
    confirmed: float | None = None
    confirmed_by: str | None = None


class Quarantine(msgspec.Struct, frozen=True, kw_only=True):
    """Why a version is kept from everybody, and who has let it go. ``findings`` is JSON text."""

    findings: str
    since: float
    release: Release | None = None

    @property
    def is_open(self) -> bool:
        """Whether it holds: two people have not released the version."""
        return self.release is None or self.release.confirmed is None


class Acceptance(msgspec.Struct, frozen=True, kw_only=True):
    """A licence that somebody accepted for a model."""

    licence: str
    accepted: float
    accepted_by: str


def isolate(connection: Connection, model: str, number: int, findings: str, now: float) -> None:
    """Put a version into quarantine, also one that was let out of it: that release is over."""
    row = {"model": model, "number": number, "findings": findings, "since": now}
    held = upsert(QUARANTINE).values(row)
    changed = {"findings": held.excluded.findings, "since": held.excluded.since}
    connection.execute(held.on_conflict_do_update(index_elements=["model", "number"], set_=changed))
    of = (RELEASES.c.model == model, RELEASES.c.number == number)
    connection.execute(delete(RELEASES).where(*of))


def quarantine_of(connection: Connection, model: str, number: int) -> Quarantine | None:
    """Return a version's quarantine, also one that is over; None when it was never in any."""
    at = (QUARANTINE.c.model == model, QUARANTINE.c.number == number)
    row = connection.execute(select(QUARANTINE).where(*at)).mappings().first()
    if row is None:
        return None
    of = (RELEASES.c.model == model, RELEASES.c.number == number)
    found = connection.execute(select(RELEASES).where(*of)).mappings().first()
    fields = Release.__struct_fields__
    release = Release(**{name: found[name] for name in fields}) if found else None
    return Quarantine(findings=row["findings"], since=row["since"], release=release)


def ask_release(connection: Connection, model: str, number: int, release: Release) -> None:
    """Record that somebody asks for a release, instead of whoever asked before."""
    at = (RELEASES.c.model == model, RELEASES.c.number == number)
    connection.execute(delete(RELEASES).where(*at))
    values = {"model": model, "number": number, **msgspec.structs.asdict(release)}
    connection.execute(insert(RELEASES).values(values))


def confirm_release(connection: Connection, model: str, number: int, now: float, by: str) -> None:
    """Record that somebody else confirms it."""
    at = (RELEASES.c.model == model, RELEASES.c.number == number)
    connection.execute(update(RELEASES).where(*at).values(confirmed=now, confirmed_by=by))


def acceptances(connection: Connection, model: str) -> list[Acceptance]:
    """Return the licences accepted for a model."""
    columns = ACCEPTANCES.c
    rows = connection.execute(
        select(columns.licence, columns.accepted, columns.accepted_by)
        .where(columns.model == model)
        .order_by(columns.licence)
    )
    return [Acceptance(**row) for row in rows.mappings()]


def accept(connection: Connection, model: str, acceptance: Acceptance) -> None:
    """Record an acceptance; the first of a licence stays."""
    values = {"model": model, **msgspec.structs.asdict(acceptance)}
    connection.execute(upsert(ACCEPTANCES).values(values).on_conflict_do_nothing())
