"""API keys: made, listed, revoked. A revocation is in force everywhere when its answer comes."""

import msgspec

from freehold.control.control import Control
from freehold.control.keys import KeyView, NewKey
from freehold.control.limits import read_budgets
from freehold.control.outcomes import plain
from freehold.gateway.admin.ask import Ask, Body


class KeyBody(Body, frozen=True):
    """Whose key, with which role; ``expires_in`` is in seconds from now.

    ``budget`` are limits of the key alone, as ``tokens=100000/day`` or ``money=25.50``.
    """

    principal: str
    role: str = "developer"
    expires_in: float | None = None
    team: str | None = None
    budget: tuple[str, ...] = ()


class Revoked(msgspec.Struct, frozen=True, kw_only=True):
    """A key that no gateway takes any more."""

    id: str
    revoked: bool = True


async def list_keys(_ask: Ask, control: Control) -> list[KeyView]:
    """List keys, also dead ones; never a secret."""
    return control.keys.list(control.clock())


async def create(ask: Ask, control: Control) -> NewKey:
    """Make a key; its secret is in this answer and nowhere else."""
    body, now = ask.read(KeyBody), control.clock()
    ask.about(plain(f"key for {body.principal} ({body.role})"))
    expires = None if body.expires_in is None else now + body.expires_in
    read_budgets("key:none", body.budget)
    by = ask.principal.name
    created = control.keys.create(body.principal, body.role, expires, now, body.team, by=by)
    ask.about(f"key {created.id} for {created.principal} ({created.role})")
    limits = read_budgets(f"key:{created.id}", body.budget)
    control.limits.put(limits, now, by)
    await control.keys_changed(trusting=True)
    return created


async def revoke(ask: Ask, control: Control) -> Revoked:
    """Revoke a key in every gateway."""
    found = control.keys.revoke(ask.params["key"], control.clock())
    ask.about(f"key {found.id} of {found.principal} ({found.role})")
    await control.keys_changed()
    return Revoked(id=ask.params["key"])
