"""The desired deployments of a home, and the document that holds all of them."""

import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any

import msgspec
import tomli_w

from freehold.control.limits import LimitEntry, identity, read_entry
from freehold.errors import FreeholdError, Invalid, Missing
from freehold.models.catalog import Digest, explain
from freehold.models.deploy import Plan, draft_of, plan
from freehold.models.deployment import Deployment, check
from freehold.models.fallback import Doubts, fall_back, still
from freehold.models.naming import check_alias, check_name
from freehold.models.registry import LaunchSettings, Registry, Version
from freehold.models.sharing import share
from freehold.runtime.builds import Builds
from freehold.settings import Runtime
from freehold.store import desired
from freehold.store.database import Database
from freehold.store.desired import DeploymentRow
from freehold.store.versions import AliasMove, move_alias

LONGEST = 1 << 20
"""Bytes of a document."""
CONVERTED, COMPRESSED = "convert:", "compress:"
"""How the source of a version begins that was made here of another: ``KIND:NAME:NUMBER[:TYPE]``."""
_MOST = msgspec.Meta(max_length=1000)


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model version in a document: enough to bring the same bytes in elsewhere.

    ``base`` is the model it was made from, as its import was told; ``parent`` is the digest of the
    version that it builds on: an adapter's base, or what it was converted from. Without
    ``settings``, its launch settings are left as they are.
    """

    name: str
    source: str
    sha256: Digest
    licence: str | None = None
    base: str | None = None
    parent: Digest | None = None
    settings: LaunchSettings | None = None


class AliasEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where an alias points, by digest: numbers differ between homes, bytes do not."""

    model: str
    alias: str
    sha256: Digest


class Document(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """The whole desired state. Never secrets, only references to them.

    A document without limits leaves them as they are.
    """

    models: Annotated[tuple[ModelEntry, ...], _MOST] = ()
    aliases: Annotated[tuple[AliasEntry, ...], _MOST] = ()
    deployments: Annotated[tuple[Deployment, ...], _MOST] = ()
    limits: Annotated[tuple[LimitEntry, ...], _MOST] | None = None


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One difference between a document and what is. ``act``: create, change, remove, import."""

    act: str
    kind: str
    name: str
    fields: tuple[str, ...] = ()


class Deployments:
    """Reads and writes deployments. ``doubts`` are the launches that keep away from a build."""

    def __init__(
        self,
        database: Database,
        registry: Registry,
        settings: Runtime,
        builds: Builds | None = None,
    ) -> None:
        self._database = database
        self._builds = builds
        self._registry = registry
        self._settings = settings
        self._plans: list[Plan] | None = None
        self.doubts: Doubts = {}
        self._updated: dict[str, float] | None = None

    def all(self) -> list[Deployment]:
        """Return every deployment, by name."""
        with self._database.reading() as connection:
            rows = desired.deployments(connection)
        return [_read(row) for row in rows]

    def updated(self) -> Mapping[str, float]:
        """Return when each deployment was last changed; read again after each change."""
        if self._updated is None:
            with self._database.reading() as connection:
                self._updated = {row.name: row.updated for row in desired.deployments(connection)}
        return self._updated

    def put(self, deployment: Deployment, now: float, by: str) -> None:
        """Create or replace a deployment."""
        check(deployment)
        text = msgspec.json.encode(deployment).decode()
        with self._database.transaction() as connection:
            desired.put_deployment(connection, deployment.name, text, now, by)
        self.forget_plans()

    def remove(self, name: str) -> None:
        """Remove a deployment; ``Missing`` when there is none."""
        with self._database.transaction() as connection:
            if not desired.remove_deployment(connection, name):
                raise Missing("missing.deployment", f"no deployment {name!r:.80}")
        self.forget_plans()

    def plans(self) -> Sequence[Plan]:
        """Return what every deployment comes to; worked out again after each change."""
        if self._plans is None:
            found = [
                plan(each, self._registry, self._settings, self._builds) for each in self.all()
            ]
            shared = share(found)
            self.doubts = still(shared, self.doubts)
            self._plans = fall_back(shared, self.doubts)
        return self._plans

    def forget_plans(self) -> None:
        """Call when models, aliases or launch settings changed."""
        self._plans = self._updated = None

    def wanted(self) -> set[str]:
        """Return the digests of all bytes that deployments want now; from any thread."""
        found: set[str] = set()
        for deployment in self.all():
            with suppress(FreeholdError):
                version = self._registry.resolve(deployment.model or "")
                found |= {artifact.digest for artifact in version.artifacts}
                if draft := draft_of(deployment, version, self._registry):
                    found |= {artifact.digest for artifact in draft.artifacts}
                for other in version.dependencies:
                    if other.target_number is not None:
                        needed = self._registry.version(other.target, other.target_number)
                        found |= {artifact.digest for artifact in needed.artifacts}
        return found

    def document(self) -> Document:
        """Return the whole desired state."""
        models: list[ModelEntry] = []
        aliases: list[AliasEntry] = []
        for name in self._registry.names():
            versions = self._registry.versions(name)
            models += map(_model_entry, versions)
            digests = {version.row.number: version.row.digest for version in versions}
            aliases += [
                AliasEntry(model=name, alias=alias, sha256=digests[number])
                for alias, number in sorted(self._registry.aliases(name).items())
            ]
        return Document(models=tuple(models), aliases=tuple(aliases), deployments=tuple(self.all()))

    def changes(self, document: Document) -> list[Change]:
        """Return what applying a document would do; a document is the whole of its deployments."""
        present = self.document()
        here = {(entry.name, entry.sha256) for entry in present.models}
        aliases = set(present.aliases)
        found = [
            Change(act="import", kind="model", name=f"{entry.name}@{entry.sha256[:12]}")
            for entry in document.models
            if (entry.name, entry.sha256) not in here
        ]
        found += _settings_changes(present, document)
        found += [
            Change(act="change", kind="alias", name=f"{entry.model}:{entry.alias}")
            for entry in document.aliases
            if entry not in aliases
        ]
        now = {deployment.name: deployment for deployment in present.deployments}
        then = {deployment.name: deployment for deployment in document.deployments}
        for name, deployment in then.items():
            if name not in now:
                found.append(Change(act="create", kind="deployment", name=name))
            elif now[name] != deployment:
                fields = _differing(now[name], deployment)
                found.append(Change(act="change", kind="deployment", name=name, fields=fields))
        gone = [Change(act="remove", kind="deployment", name=n) for n in now if n not in then]
        return found + gone

    def apply(self, document: Document, now: float, by: str, also: Callable[[Any], None]) -> None:
        """Make deployments and aliases those of a document, and do ``also``: all of it or nothing.

        ``also`` is given the connection.
        """
        moves = self._moves(document.aliases, now, by)
        wanted = {deployment.name for deployment in document.deployments}
        with self._database.transaction() as connection:
            for deployment in document.deployments:
                text = msgspec.json.encode(deployment).decode()
                desired.put_deployment(connection, deployment.name, text, now, by)
            for row in desired.deployments(connection):
                if row.name not in wanted:
                    desired.remove_deployment(connection, row.name)
            for move in moves:
                move_alias(connection, move)
            also(connection)
        self.forget_plans()

    def set_launch_settings(self, entries: Iterable[ModelEntry], now: float, by: str) -> None:
        """Add revisions of launch settings where a document wants others, and the version is."""
        for entry in entries:
            version = self._version(entry.name, entry.sha256)
            if version is None or entry.settings is None or entry.settings == version.settings:
                continue
            number = version.row.number
            self._registry.set_launch_settings(entry.name, number, entry.settings, now, by)
        self.forget_plans()

    def _version(self, model: str, digest: str) -> Version | None:
        try:
            versions = self._registry.versions(model)
        except Missing:
            return None
        return next((v for v in versions if v.row.digest == digest), None)

    def point_aliases(self, entries: Iterable[AliasEntry], now: float, by: str) -> None:
        """Move aliases to where a document wants them, as far as the versions are here."""
        moves = self._moves(entries, now, by)
        with self._database.transaction() as connection:
            for move in moves:
                move_alias(connection, move)
        self.forget_plans()

    def _moves(self, entries: Iterable[AliasEntry], now: float, by: str) -> list[AliasMove]:
        found = []
        for entry in entries:
            version = self._version(entry.model, entry.sha256)
            if version is None or (version.quarantine and version.quarantine.is_open):
                continue
            number = version.row.number
            if self._registry.aliases(entry.model).get(entry.alias) != number:
                found.append(
                    AliasMove(
                        model=entry.model, alias=entry.alias, number=number, moved=now, moved_by=by
                    )
                )
        return found


def read_document(text: str) -> Document:
    """Read and check a document; nothing is changed when any line of it is wrong."""
    if len(text) > LONGEST or len(text.encode()) > LONGEST:
        raise Invalid("invalid.document", f"the document is over {LONGEST} bytes")
    try:
        document = msgspec.convert(tomllib.loads(text), Document)
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise Invalid("invalid.document", f"the document is wrong: {explain(error)}") from error
    _refuse_doubles("deployment", (each.name for each in document.deployments))
    _refuse_doubles("model", (f"{each.name}@{each.sha256}" for each in document.models))
    _refuse_doubles("alias", (f"{each.model}:{each.alias}" for each in document.aliases))
    for deployment in document.deployments:
        check(deployment)
    for entry in document.models:
        check_name(entry.name)
    for alias in document.aliases:
        check_name(alias.model)
        check_alias(alias.alias)
    limits = [identity(read_entry(entry)) for entry in document.limits or ()]
    if len(set(limits)) < len(limits):
        raise Invalid("invalid.document", "a limit stands there twice")
    return document


def _refuse_doubles(kind: str, names: Iterable[str]) -> None:
    double = next((name for name, count in Counter(names).items() if count > 1), None)
    if double is not None:
        raise Invalid("invalid.document", f"the {kind} {double} stands there twice")


def write_document(document: Document) -> str:
    """Return a document as TOML; ``read_document`` gives the same back."""
    tables = [
        # Tables inside an entry belong to it.
        f"[[{kind}]]\n" + re.sub(r"(?m)^\[", f"[{kind}.", tomli_w.dumps(_set_fields(item)))
        for kind in Document.__struct_fields__
        for item in getattr(document, kind) or ()
    ]
    return "\n".join(tables)


def _read(row: DeploymentRow) -> Deployment:
    """Return what is stored; where that is not understood any more, a name that cannot run."""
    try:
        return msgspec.json.decode(row.document, type=Deployment)
    except msgspec.DecodeError:
        return Deployment(name=row.name)


def _set_fields(item: msgspec.Struct) -> dict[str, object]:
    fields: dict[str, object] = msgspec.to_builtins(item)
    return _without_nulls(fields)


def _without_nulls(fields: dict[str, Any]) -> dict[str, object]:
    return {
        name: _without_nulls(value) if isinstance(value, dict) else value
        for name, value in fields.items()
        if value is not None
    }


def _model_entry(version: Version) -> ModelEntry:
    row, own = version.row, version.manifest
    named = [d.target for d in version.dependencies if d.kind == "base"]
    return ModelEntry(
        name=row.model,
        source=row.source,
        sha256=row.digest,
        licence=row.licence if row.licence != own.licence else None,
        base=next((name for name in named if name not in own.base_models), None),
        parent=_parent(version),
        settings=version.settings if version.settings != LaunchSettings() else None,
    )


def _parent(version: Version) -> str | None:
    """Return the digest of what a version cannot be had without."""
    kind = "parent" if version.row.source.startswith(CONVERTED) else "base"
    return next(
        (d.digest for d in version.dependencies if d.kind == kind and d.target_number is not None),
        None,
    )


def _settings_changes(present: Document, wanted: Document) -> list[Change]:
    now = {(entry.name, entry.sha256): entry.settings for entry in present.models}
    return [
        Change(act="change", kind="settings", name=f"{entry.name}@{entry.sha256[:12]}")
        for entry in wanted.models
        if entry.settings is not None
        and entry.settings != (now.get((entry.name, entry.sha256)) or LaunchSettings())
    ]


def _differing(one: Deployment, other: Deployment) -> tuple[str, ...]:
    fields = Deployment.__struct_fields__
    return tuple(name for name in fields if getattr(one, name) != getattr(other, name))
