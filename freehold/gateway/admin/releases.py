"""Versions let out of quarantine by two people, and licences that somebody accepts."""

import msgspec

from freehold.control.control import Control
from freehold.gateway.admin.ask import Ask, Body, version_number
from freehold.gateway.admin.models import VersionView, view
from freehold.models import release as acts
from freehold.store.quarantine import Acceptance


class ReleaseBody(Body, frozen=True):
    """Why a version shall be released; who confirms need not repeat it."""

    reason: str = ""


class AcceptedView(msgspec.Struct, frozen=True, kw_only=True):
    """The licences that are accepted for a model."""

    model: str
    accepted: list[Acceptance]


async def release(ask: Ask, control: Control) -> VersionView:
    """Ask for a version's release from quarantine, or confirm what another person has asked."""
    number = version_number(ask.params["version"])
    version = control.registry.version(ask.params["model"], number)
    reason, by = ask.read(ReleaseBody).reason, ask.principal.name
    found = acts.release(
        control.database, control.registry, version, reason, control.clock(), by, ask.principal.key
    )
    await control.changed()
    return view(found, control)


async def accept(ask: Ask, control: Control) -> AcceptedView:
    """Accept the licences of a model that the settings ask about."""
    model, by = ask.params["model"], ask.principal.name
    policy = control.settings.licences
    accepted = acts.accept(control.database, control.registry, model, policy, control.clock(), by)
    await control.changed()
    return AcceptedView(model=model, accepted=accepted)
