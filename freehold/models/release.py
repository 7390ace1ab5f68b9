"""Let versions out of quarantine, and accept licences: acts that are recorded with who did them."""

from freehold.errors import Conflict
from freehold.models.admission import asked_for, check_confirming
from freehold.models.registry import PRODUCTION, Registry, Version
from freehold.settings import Licences
from freehold.store import credentials, quarantine, versions
from freehold.store.database import Database
from freehold.store.quarantine import Acceptance, Release
from freehold.store.versions import AliasMove


def release(
    database: Database,
    registry: Registry,
    version: Version,
    reason: str,
    now: float,
    by: str,
    key: str = "",
) -> Version:
    """Ask for a release, or confirm what another has asked; return the version as it is then.

    ``key`` is the id of the key that ``by`` asks with.
    A model without ``production`` gets it with its first version that may be used.
    """
    row = version.row
    with database.transaction() as connection:
        current = quarantine.quarantine_of(connection, row.model, row.number)
        keys = credentials.keys(connection)
        if check_confirming(row, current, reason, now, by, key, keys):
            quarantine.confirm_release(connection, row.model, row.number, now, by)
            if not versions.alias_history(connection, row.model):
                move = AliasMove(
                    model=row.model, alias=PRODUCTION, number=row.number, moved=now, moved_by=by
                )
                versions.move_alias(connection, move)
        else:
            asked = Release(reason=reason.strip(), asked=now, asked_by=by)
            quarantine.ask_release(connection, row.model, row.number, asked)
    return registry.version(row.model, row.number)


def accept(
    database: Database, registry: Registry, model: str, policy: Licences, now: float, by: str
) -> list[Acceptance]:
    """Accept the licences of a model that the policy asks about; return all that are accepted."""
    wanted: set[str] = set()
    for version in registry.versions(model):
        wanted |= asked_for((version.row.licence, version.manifest.licence), policy)
    if not wanted:
        raise Conflict(
            "conflict.nothing_to_accept", f"no licence of {model} is one that must be accepted"
        )
    with database.transaction() as connection:
        for licence in sorted(wanted):
            given = Acceptance(licence=licence, accepted=now, accepted_by=by)
            quarantine.accept(connection, model, given)
        return quarantine.acceptances(connection, model)
