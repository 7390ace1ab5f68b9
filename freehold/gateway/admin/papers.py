"""What belongs to a version besides its files: card, bill of materials, signatures; pushing it."""

import asyncio
from typing import Any

import msgspec

from freehold import __version__
from freehold.control.control import Control
from freehold.control.jobs import Job
from freehold.control.push import start_push
from freehold.errors import Missing
from freehold.gateway.admin.ask import Ask, Body, version_number
from freehold.models.bom import bill
from freehold.models.registry import Version
from freehold.store.cards import SignatureRow


class CardView(msgspec.Struct, frozen=True, kw_only=True):
    """A version's model card, in Markdown, as its makers wrote it."""

    model: str
    version: int
    text: str


class CardBody(Body, frozen=True):
    """A model card, in Markdown."""

    text: str


class SignatureBody(Body, frozen=True):
    """The text of an OpenSSF signature bundle."""

    bundle: str


class SignatureView(msgspec.Struct, frozen=True, kw_only=True):
    """A signature: ``signer`` where somebody trusted made it, else ``reason`` says why not."""

    id: str
    signer: str | None
    reason: str | None
    created: float
    created_by: str
    bundle: str


class PushBody(Body, frozen=True):
    """Where to: ``oci://HOST[:PORT]/REPOSITORY[:TAG]``."""

    target: str


async def show_card(ask: Ask, control: Control) -> CardView:
    """Show a version's model card."""
    version = _version(ask, control)
    text = control.papers.card(version.row.model, version.row.number)
    if text is None:
        raise Missing(
            "missing.card",
            f"{version.row.model}:{version.row.number} came without a model card: give it one with "
            "freehold model card --set FILE",
        )
    return CardView(model=version.row.model, version=version.row.number, text=text)


async def set_card(ask: Ask, control: Control) -> CardView:
    """Give a version a model card, in place of its own."""
    version = _version(ask, control)
    control.papers.set_card(version.row.model, version.row.number, ask.read(CardBody).text)
    return await show_card(ask, control)


async def bill_of_materials(ask: Ask, control: Control) -> dict[str, Any]:
    """Show what a version is made of, as a CycloneDX 1.6 document."""
    version = _version(ask, control)
    views = await asyncio.to_thread(_views, version, control)
    doubted = [str(view.reason) for view in views if not view.signer]
    return bill(version, [view.signer for view in views if view.signer], __version__, doubted)


async def list_signatures(ask: Ask, control: Control) -> list[SignatureView]:
    """List the signatures over a version, and whose of them count here."""
    return await asyncio.to_thread(_views, _version(ask, control), control)


async def sign(ask: Ask, control: Control) -> SignatureView:
    """Keep a signature over a version; it is made where the key is."""
    version = _version(ask, control)
    bundle = ask.read(SignatureBody).bundle.encode()
    row = control.papers.sign(version, bundle, control.clock(), ask.principal.name)
    return await asyncio.to_thread(_view, row, version, control)


async def forget_signature(ask: Ask, control: Control) -> list[SignatureView]:
    """Remove a signature; show those that are left."""
    version = _version(ask, control)
    control.papers.forget_signature(version.row.model, version.row.number, ask.params["signature"])
    return await list_signatures(ask, control)


async def push(ask: Ask, control: Control) -> Job:
    """Start sending a version to a registry, as a ModelPack artifact."""
    return start_push(control, _version(ask, control), ask.read(PushBody).target)


def _version(ask: Ask, control: Control) -> Version:
    number = version_number(ask.params["version"])
    return control.registry.version(ask.params["model"], number)


def _views(version: Version, control: Control) -> list[SignatureView]:
    rows = control.papers.signatures(version.row.model, version.row.number)
    return [_view(row, version, control) for row in rows]


def _view(row: SignatureRow, version: Version, control: Control) -> SignatureView:
    signer, reason = control.papers.standing(row, version)
    return SignatureView(
        id=row.id,
        signer=signer,
        reason=reason,
        created=row.created,
        created_by=row.created_by,
        bundle=row.bundle.decode("utf-8", "replace"),
    )
