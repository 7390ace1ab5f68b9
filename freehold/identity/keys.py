"""API keys: minted once, shown once, kept as a keyed hash, looked up in a snapshot.

A key reads ``fh-ID-SECRET``. Its keyed hash is HMAC-SHA256 under the home's own secret, so a stolen
database or snapshot cannot be searched for keys without that file.
"""

import hmac
import math
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import msgspec

from freehold.errors import Broken, Unauthenticated
from freehold.store.snapshot import KeyGrant

PREFIX = "fh-"
LONGEST = 256
MOST_KNOWN = 4096


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who has shown who they are."""

    name: str
    role: str
    key: str
    team: str | None = None


def mint() -> tuple[str, str]:
    """Return a new key's (id, whole text)."""
    key_id = secrets.token_hex(6)
    return key_id, f"{PREFIX}{key_id}-{secrets.token_urlsafe(32)}"


def keyed_hash(pepper: bytes, text: str) -> str:
    """Return the hash under which a key is stored, in hex."""
    return hmac.digest(pepper, text.encode("utf-8", "surrogateescape"), "sha256").hex()


def authenticate(
    grants: Mapping[str, KeyGrant], pepper: bytes, authorization: str | None, now: float
) -> Principal:
    """Return who the ``Authorization`` header stands for; ``now`` is in epoch seconds."""
    if not authorization:
        raise Unauthenticated(
            "unauthenticated.missing_key",
            "no API key: send the header Authorization: Bearer fh-...",
        )
    scheme, _, text = authorization.partition(" ")
    if scheme.lower() != "bearer" or not text or len(text) > LONGEST:
        raise Unauthenticated(
            "unauthenticated.malformed_key", "the Authorization header must read: Bearer fh-..."
        )
    grant = grants.get(keyed_hash(pepper, text.strip()))
    if grant is None:
        raise Unauthenticated("unauthenticated.unknown_key", "this API key is unknown or revoked")
    if grant.expires is not None and grant.expires <= now:
        raise Unauthenticated(
            "unauthenticated.expired_key",
            f"the API key {grant.id} has expired: ask an administrator for a new one",
        )
    return Principal(name=grant.principal, role=grant.role, key=grant.id, team=grant.team)


class Callers:
    """Who calls, by their keys; those that came before are known by sight until keys change."""

    def __init__(self, pepper: bytes) -> None:
        self._pepper = pepper
        self._grants: Mapping[str, KeyGrant] = {}
        self._known: dict[str, tuple[Principal, float]] = {}

    def who(
        self, grants: Mapping[str, KeyGrant], authorization: str | None, now: float
    ) -> Principal:
        """Return who the ``Authorization`` header stands for, as ``authenticate`` does."""
        if grants is not self._grants or len(self._known) > MOST_KNOWN:
            self._grants = grants
            self._known.clear()
        known = self._known.get(authorization or "")
        if known is not None and now < known[1]:
            return known[0]
        found = authenticate(grants, self._pepper, authorization, now)
        until = min(
            (g.expires for g in grants.values() if g.id == found.key and g.expires is not None),
            default=math.inf,
        )
        self._known[authorization or ""] = (found, until)
        return found


def read_pepper(path: Path, *, fresh: bool = False) -> bytes:
    """Return the home's secret for keyed hashes (32 bytes, mode 0600); made in a ``fresh`` home."""
    try:
        pepper = path.read_bytes()
    except FileNotFoundError:
        if fresh:
            return _make_pepper(path)
        raise Broken(
            "broken.pepper", f"{path} is gone: restore it from a backup, or no key works"
        ) from None
    if len(pepper) != 32:
        raise Broken(
            "broken.pepper", f"{path} must hold 32 bytes: restore it from a backup, or no key works"
        )
    return pepper


def _make_pepper(path: Path) -> bytes:
    pepper = secrets.token_bytes(32)
    partial = path.with_name(f"{path.name}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pepper)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync_directory(path.parent)
    return pepper


def sync_directory(path: Path) -> None:
    """Make what a directory lists durable: a file's new name is not, before that."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
