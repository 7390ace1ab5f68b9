"""Who may be the second of the two people that release a version? Pure: no I/O, no clock.

Whoever may release may make keys, too. So neither may have made the other's keys, and no key counts
that was made after the asking.
"""

from collections.abc import Sequence

from freehold.errors import Forbidden
from freehold.identity.makers import one_made_the_other
from freehold.policy.permissions import ROLES
from freehold.store.credentials import KeyRow
from freehold.store.quarantine import Release
from freehold.store.versions import VersionRow

PERMISSION = "model:release"


def refusal(
    row: VersionRow, asked: Release, by: str, key: str, keys: Sequence[KeyRow], now: float
) -> Forbidden | None:
    """Return why ``by``, with the key of that id, cannot confirm what was asked; None if so."""
    name = f"{row.model}:{row.number}"
    if by == asked.asked_by:
        return Forbidden(
            "forbidden.same_person", f"{by} has asked for this release: somebody else must confirm"
        )
    if by == row.created_by:
        return Forbidden(
            "forbidden.same_person", f"{by} has brought {name} in: somebody else must confirm"
        )
    if any(each.id == key and each.created > asked.asked for each in keys):
        return Forbidden(
            "forbidden.new_key",
            f"the key of {by} was made after this release was asked for: confirm with a key from "
            "before",
        )
    if not one_made_the_other(by, asked.asked_by, keys):
        return None
    return Forbidden(
        "forbidden.own_key",
        f"of {by} and {asked.asked_by}, who has asked, one has made the other's key: somebody else "
        f"must confirm; {_way_out(row, asked, by, keys, now)}",
    )


def able(row: VersionRow, asked: Release, keys: Sequence[KeyRow], now: float) -> list[str]:
    """Return the principals that can confirm what was asked, by the keys they have now."""
    return sorted(
        {
            each.principal
            for each in keys
            if each.revoked is None
            and (each.expires is None or each.expires > now)
            and PERMISSION in ROLES.get(each.role, ())
            and each.created <= asked.asked
            and each.principal not in (asked.asked_by, row.created_by)
            and not one_made_the_other(each.principal, asked.asked_by, keys)
        }
    )


def _way_out(row: VersionRow, asked: Release, by: str, keys: Sequence[KeyRow], now: float) -> str:
    if found := able(row, asked, keys, now):
        return f"{', '.join(found)} can"
    anew = f"ask anew with freehold model release {row.model}:{row.number} --reason WHY"
    if found := able(row, Release(reason="", asked=now, asked_by=by), keys, now):
        return f"nobody can, so {anew}, and {', '.join(found)} can confirm"
    return (
        "nobody can: make a key for a third person (freehold key create --principal NAME --role "
        f"admin), then {anew}"
    )
