"""Models and their versions: brought in, shown, verified, promoted, rolled back, removed."""

from typing import Any

import msgspec

from freehold.control.control import Control
from freehold.control.jobs import Job
from freehold.control.outcomes import plain
from freehold.errors import Conflict
from freehold.gateway.admin.ask import Ask, Body, version_number
from freehold.models.catalog import CatalogEntry, Digest, read_catalog
from freehold.models.compress.report import quality
from freehold.models.manifest import Manifest
from freehold.models.pipeline import Arrival
from freehold.models.registry import LaunchSettings, Version
from freehold.models.scan.finding import Finding, decode
from freehold.store.quarantine import Release
from freehold.store.versions import AliasMove, Artifact, Dependency, SettingsRow


class ModelSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A model in a list. ``bytes`` to ``licence`` are of its production version."""

    name: str
    versions: list[int]
    aliases: dict[str, int]
    digest: str
    bytes: int
    parameters: int
    context: int | None
    quantisation: str
    licence: str | None
    quarantined: list[int] = []


class QuarantineView(msgspec.Struct, frozen=True, kw_only=True):
    """Why a version is, or was, kept from everybody; ``open`` until two people have released it."""

    open: bool
    since: float
    findings: tuple[Finding, ...]
    release: Release | None


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """A signature over a version: its ``signer`` where it counts here, else ``reason`` why not."""

    signer: str | None
    reason: str | None


class VersionView(msgspec.Struct, frozen=True, kw_only=True):
    """A version with everything known of it. ``lineage`` is what it came from, nearest first.

    ``left_out`` are files that lay beside it when it was imported, and are no part of it.
    """

    number: int
    digest: str
    bytes: int
    format: str
    licence: str | None
    notice: str | None
    source: str
    resolved: str
    created: float
    created_by: str
    manifest: Manifest
    artifacts: tuple[Artifact, ...]
    dependencies: tuple[Dependency, ...]
    lineage: tuple[str, ...]
    settings: LaunchSettings
    settings_revision: int
    checked: float | None
    damage: str | None
    quarantine: QuarantineView | None
    quality: dict[str, float] | None = None
    left_out: tuple[str, ...] = ()
    signatures: tuple[Signed, ...] = ()


class ModelView(msgspec.Struct, frozen=True, kw_only=True):
    """A model: its versions, where its aliases point and have pointed."""

    name: str
    aliases: dict[str, int]
    versions: list[VersionView]
    history: list[AliasMove]


class ImportBody(Body, frozen=True):
    """What to bring in. ``sha256`` pins the bytes; nothing else is kept then.

    ``signature`` is the text of an OpenSSF signature bundle over them.
    """

    source: str
    name: str | None = None
    sha256: Digest | None = None
    licence: str | None = None
    dependencies: tuple[Dependency, ...] = ()
    signature: str | None = None


class AliasBody(Body, frozen=True):
    """Where an alias shall point."""

    version: int


class AliasView(msgspec.Struct, frozen=True, kw_only=True):
    """Where an alias points."""

    model: str
    alias: str
    version: int


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """What a removal gave back."""

    model: str
    versions: list[int]
    freed_bytes: int


class SettingsRevision(msgspec.Struct, frozen=True, kw_only=True):
    """One revision of a version's launch settings."""

    revision: int
    settings: dict[str, int | str | None]
    created: float
    created_by: str


class SettingsView(msgspec.Struct, frozen=True, kw_only=True):
    """A version's launch settings, the newest revision last."""

    revisions: list[SettingsRevision]
    settings: LaunchSettings


async def catalog(_ask: Ask, control: Control) -> list[CatalogEntry]:
    """List what can be imported by name."""
    return list(read_catalog(control.settings.sources.catalog).values())


async def list_models(_ask: Ask, control: Control) -> list[ModelSummary]:
    """List the models of the registry."""
    return [_summary(name, control) for name in control.registry.names()]


async def show(ask: Ask, control: Control) -> ModelView:
    """Show one model."""
    name = ask.params["model"]
    return ModelView(
        name=name,
        versions=[view(version, control) for version in control.registry.versions(name)],
        aliases=control.registry.aliases(name),
        history=control.registry.alias_history(name),
    )


async def bring_in(ask: Ask, control: Control) -> Job:
    """Start an import; the same one under way is joined."""
    body = ask.read(ImportBody)
    ask.about(plain(f"import {body.source}" + (f" as {body.name}" if body.name else "")))
    arrival = Arrival(
        source=body.source,
        name=body.name,
        sha256=body.sha256,
        licence=body.licence,
        dependencies=body.dependencies,
        signature=body.signature.encode() if body.signature else None,
    )
    return control.start_import(arrival, ask.principal.name)


async def verify(ask: Ask, control: Control) -> Job:
    """Start reading a version's bytes again."""
    number = version_number(ask.params["version"])
    return control.start_verify(control.registry.version(ask.params["model"], number))


async def remove(ask: Ask, control: Control) -> Removed:
    """Remove a whole model."""
    name = ask.params["model"]
    versions = control.registry.versions(name)
    _refuse_in_use(name, control)
    freed = control.registry.remove_model(name)
    control.deployments.forget_plans()
    numbers = [version.row.number for version in versions]
    return Removed(model=name, versions=numbers, freed_bytes=freed)


async def remove_version(ask: Ask, control: Control) -> Removed:
    """Remove one version that no alias points to and no deployment runs."""
    name, number = ask.params["model"], version_number(ask.params["version"])
    digest = control.registry.version(name, number).row.digest
    using = [
        plan.deployment.name
        for plan in control.deployments.plans()
        if (plan.version is not None and plan.version.row.digest == digest)
        or (plan.launch is not None and digest in (plan.launch.weights, plan.launch.draft))
    ]
    if using:
        raise Conflict(
            "conflict.in_use", f"{name}:{number} runs as {', '.join(using)}: undeploy that first"
        )
    freed = control.registry.remove(name, number)
    control.deployments.forget_plans()
    return Removed(model=name, versions=[number], freed_bytes=freed)


async def promote(ask: Ask, control: Control) -> AliasView:
    """Point an alias at a version; deployments that follow it change over."""
    name, alias, body = ask.params["model"], ask.params["alias"], ask.read(AliasBody)
    control.registry.promote(name, alias, body.version, control.clock(), ask.principal.name)
    await control.changed()
    return AliasView(model=name, alias=alias, version=body.version)


async def roll_back(ask: Ask, control: Control) -> AliasView:
    """Point an alias back to the version it had before."""
    name, alias = ask.params["model"], ask.params["alias"]
    control.registry.versions(name)
    number = control.registry.roll_back(name, alias, control.clock(), ask.principal.name)
    await control.changed()
    return AliasView(model=name, alias=alias, version=number)


async def show_settings(ask: Ask, control: Control) -> SettingsView:
    """Show how a version is launched, every revision of it."""
    name, number = ask.params["model"], version_number(ask.params["version"])
    version = control.registry.version(name, number)
    rows = control.registry.launch_settings(name, number)
    return SettingsView(revisions=list(map(_revision, rows)), settings=version.settings)


async def set_settings(ask: Ask, control: Control) -> SettingsView:
    """Add a revision of how a version is launched."""
    name, number = ask.params["model"], version_number(ask.params["version"])
    settings = ask.read(LaunchSettings)
    control.registry.set_launch_settings(
        name, number, settings, control.clock(), ask.principal.name
    )
    await control.changed()
    return await show_settings(ask, control)


def _revision(row: SettingsRow) -> SettingsRevision:
    return SettingsRevision(
        revision=row.revision,
        settings=msgspec.json.decode(row.document, type=dict[str, int | str | None]),
        created=row.created,
        created_by=row.created_by,
    )


def _refuse_in_use(model: str, control: Control) -> None:
    using = [
        deployment.name
        for deployment in control.deployments.all()
        if (deployment.model or "").partition(":")[0] == model
    ]
    if using:
        raise Conflict(
            "conflict.in_use", f"{model} runs as {', '.join(using)}: undeploy that first"
        )


def _summary(name: str, control: Control) -> ModelSummary:
    versions = control.registry.versions(name)
    aliases = control.registry.aliases(name)
    number = aliases.get("production", versions[-1].row.number)
    shown = next((v for v in versions if v.row.number == number), versions[-1])
    return ModelSummary(
        name=name,
        versions=[version.row.number for version in versions],
        aliases=aliases,
        digest=shown.row.digest,
        bytes=shown.row.bytes,
        parameters=shown.manifest.parameters,
        context=shown.manifest.context,
        quantisation=shown.manifest.quantisation,
        licence=shown.row.licence,
        quarantined=[v.row.number for v in versions if v.quarantine and v.quarantine.is_open],
    )


def view(version: Version, control: Control) -> VersionView:
    """Return a version as it is shown."""
    row: dict[str, Any] = msgspec.structs.asdict(version.row)
    row.pop("model")
    row.pop("manifest")
    return VersionView(
        **row,
        manifest=version.manifest,
        artifacts=version.artifacts,
        dependencies=version.dependencies,
        lineage=control.registry.lineage(version),
        settings=version.settings,
        settings_revision=version.settings_revision,
        checked=version.checked,
        damage=version.damage,
        quality=quality(control.registry.report(version.row.model, version.row.number)),
        quarantine=_quarantine(version),
        left_out=control.registry.left_out(version.row.model, version.row.number),
        signatures=_signatures(version, control),
    )


def _signatures(version: Version, control: Control) -> tuple[Signed, ...]:
    rows = control.papers.signatures(version.row.model, version.row.number)
    told = [control.papers.standing(row, version) for row in rows]
    return tuple(Signed(signer=signer, reason=reason) for signer, reason in told)


def _quarantine(version: Version) -> QuarantineView | None:
    held = version.quarantine
    if held is None:
        return None
    return QuarantineView(
        open=held.is_open,
        since=held.since,
        findings=decode(held.findings),
        release=held.release,
    )
