"""May a version be used? Pure: what is recorded of it in, a refusal that says what to do out.

Of the two people who release a version from quarantine, neither is the other or has made the key of
the other, and who confirms has not brought it in: whoever smuggles a model in needs two more to let
it out.
"""

from collections.abc import Iterable, Sequence

from freehold.errors import Conflict, Invalid, Refused
from freehold.models.licence import UNTOLD, each_of, judge, plain
from freehold.models.scan.finding import decode
from freehold.models.second import able, refusal
from freehold.settings import Licences
from freehold.store.credentials import KeyRow
from freehold.store.quarantine import Acceptance, Quarantine, Release
from freehold.store.versions import VersionRow

ASKING_HOLDS = 7 * 86400.0
"""Seconds within which somebody must confirm."""
LONGEST_REASON = 1000


def check_released(row: VersionRow, quarantine: Quarantine | None) -> None:
    """Raise ``Refused`` while a version is in quarantine."""
    if quarantine is None or not quarantine.is_open:
        return
    findings = decode(quarantine.findings)
    first = f"{findings[0].file}: {findings[0].says}" if findings else "the scan"
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    raise Refused(
        "refused.quarantined",
        f"{row.model}:{row.number} is in quarantine: {first}{more}; it takes two people to release "
        f"it: freehold model release {row.model}:{row.number} --reason WHY",
    )


def check_licence(
    row: VersionRow,
    told: Iterable[str | None],
    policy: Licences,
    accepted: Iterable[Acceptance],
) -> None:
    """Raise ``Refused`` when the policy denies what is told of a licence, or wants a yes to it."""
    names = [name for name in told if name]
    verdict = judge(names, policy)
    shown = names[0] if names else "unknown"
    if verdict == "deny":
        raise Refused(
            "refused.licence",
            f"{row.model}:{row.number} is under the licence {shown}, which the setting licences of "
            "this Freehold denies",
        )
    given = {acceptance.licence for acceptance in accepted}
    if verdict == "ask" and asked_for(names, policy) - given:
        raise Refused(
            "refused.licence_not_accepted",
            f"the licence {shown} of {row.model}:{row.number} must be accepted first: read it, "
            f"then freehold model accept {row.model}",
        )


def asked_for(told: Iterable[str | None], policy: Licences) -> set[str]:
    """Return the licences among those told that somebody must accept, by their plain names."""
    names = [part for name in told if name for part in each_of(name) if plain(part) not in UNTOLD]
    if not names:
        return {"unknown"} if policy.unknown == "ask" else set()
    return {plain(name) for name in names if judge((name,), policy) == "ask"}


def check_confirming(
    row: VersionRow,
    quarantine: Quarantine | None,
    reason: str,
    now: float,
    by: str,
    key: str = "",
    keys: Sequence[KeyRow] = (),
) -> bool:
    """Return whether this is the confirmation of a release, False when it asks for one.

    ``keys`` are all keys there are, dead ones too, and ``key`` is the id of the one in use. What
    nobody can confirm holds up nobody else who asks, with a reason.
    Raises ``Conflict``, ``Forbidden`` or ``Invalid`` when it can be neither.
    """
    name = f"{row.model}:{row.number}"
    if quarantine is None or not quarantine.is_open:
        raise Conflict("conflict.not_quarantined", f"{name} is not in quarantine")
    asked = quarantine.release
    if asked is not None and not _is_stale(asked, now):
        refused = refusal(row, asked, by, key, keys, now)
        if refused is None:
            return True
        if by == asked.asked_by or not reason.strip() or able(row, asked, keys, now):
            raise refused
    if not reason.strip() or len(reason) > LONGEST_REASON:
        raise Invalid(
            "invalid.reason", f"say why, in at most {LONGEST_REASON} letters", param="reason"
        )
    return False


def _is_stale(asked: Release, now: float) -> bool:
    return now - asked.asked > ASKING_HOLDS
