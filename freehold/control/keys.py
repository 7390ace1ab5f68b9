"""API keys as an administrator sees them: made, listed, revoked. The secret is shown once."""

from collections.abc import Callable, Mapping

import msgspec

from freehold.errors import Conflict, Invalid, Missing
from freehold.identity.keys import keyed_hash, mint
from freehold.models.naming import check_name
from freehold.policy.permissions import check_role
from freehold.store import credentials
from freehold.store.credentials import KeyRow
from freehold.store.database import Database
from freehold.store.snapshot import KeyGrant

ADMIN = "admin"


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key at the only moment its secret is known."""

    id: str
    principal: str
    role: str
    key: str
    expires: float | None
    team: str | None = None
    created_by: str | None = None


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """A key without its secret or hash. Times in epoch seconds.

    ``created_by`` made it; null for the first of a home, and where that is not known.
    """

    id: str
    principal: str
    role: str
    created: float
    expires: float | None
    revoked: float | None
    state: str
    team: str | None = None
    created_by: str | None = None


class Keys:
    """The keys of a home."""

    def __init__(self, database: Database, pepper: bytes) -> None:
        self._database = database
        self._pepper = pepper

    def create(
        self,
        principal: str,
        role: str,
        expires: float | None,
        now: float,
        team: str | None = None,
        kept: Callable[[str], None] = lambda _: None,
        by: str | None = None,
    ) -> NewKey:
        """Make a key. ``expires`` is in epoch seconds; None never expires.

        ``by`` is the principal that makes it; None is for the first key of a home.

        ``kept`` may write it down before it is in force: a key that is in force is never lost.
        """
        check_name(principal.lower().replace("@", "-"))
        if team is not None:
            check_name(team)
        check_role(role)
        if expires is not None and expires <= now:
            raise Invalid("invalid.expiry", "the expiry must lie in the future", param="expires")
        key_id, text = mint()
        row = KeyRow(
            id=key_id,
            principal=principal,
            role=role,
            digest=keyed_hash(self._pepper, text),
            created=now,
            expires=expires,
            team=team,
            created_by=by,
        )
        with self._database.transaction() as connection:
            credentials.add_key(connection, row)
            kept(text)
        return NewKey(
            id=key_id, principal=principal, role=role, key=text, expires=expires, team=team,
            created_by=by,
        )  # fmt: skip

    def list(self, now: float) -> list[KeyView]:
        """Return all keys, also dead ones."""
        with self._database.reading() as connection:
            rows = credentials.keys(connection)
        return [_view(row, now) for row in rows]

    def revoke(self, key_id: str, now: float) -> KeyView:
        """Revoke a key and return it; ``Missing`` when there is no live one of that id.

        ``Conflict`` for the last one that can administer: nobody could make another.
        """
        with self._database.transaction() as connection:
            live = [row for row in credentials.keys(connection) if _state(row, now) == "live"]
            admins = [row.id for row in live if row.role == ADMIN]
            if admins == [key_id]:
                raise Conflict(
                    "conflict.last_admin",
                    f"{key_id} is the last live key of an administrator: make another first, with "
                    "freehold key create --principal NAME --role admin",
                )
            if not credentials.revoke_key(connection, key_id, now):
                raise Missing("missing.key", f"no live key {key_id!r:.40}: see freehold key list")
            row = next(row for row in credentials.keys(connection) if row.id == key_id)
        return _view(row, now)

    def can_administer(self, text: str | None, now: float) -> bool:
        """Say whether a key is in force, and it or another one may administer."""
        live = {
            digest: grant.role
            for digest, grant in self.grants().items()
            if grant.expires is None or grant.expires > now
        }
        held = text is not None and keyed_hash(self._pepper, text) in live
        return held and ADMIN in live.values()

    def grants(self) -> Mapping[str, KeyGrant]:
        """Return what gateways need: live keys by keyed hash."""
        with self._database.reading() as connection:
            rows = credentials.keys(connection)
        return {
            row.digest: KeyGrant(
                id=row.id,
                principal=row.principal,
                role=row.role,
                expires=row.expires,
                team=row.team,
            )
            for row in rows
            if row.revoked is None
        }


def has_keys(database: Database) -> bool:
    """Say whether there is any key, dead ones included."""
    with database.reading() as connection:
        return bool(credentials.keys(connection))


def _view(row: KeyRow, now: float) -> KeyView:
    return KeyView(
        id=row.id,
        principal=row.principal,
        role=row.role,
        created=row.created,
        expires=row.expires,
        revoked=row.revoked,
        state=_state(row, now),
        team=row.team,
        created_by=row.created_by,
    )


def _state(row: KeyRow, now: float) -> str:
    if row.revoked is not None:
        return "revoked"
    return "expired" if row.expires is not None and row.expires <= now else "live"
