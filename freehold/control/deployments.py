"""The desired deployments of a home, and the document that holds all of them."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import tomli_w

from freehold.errors import FreeholdError, Invalid, Missing
from freehold.models.deploy import Deployment, Plan, check, plan
from freehold.models.registry import Registry
from freehold.settings import Runtime
from freehold.store import desired
from freehold.store.database import Database


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model version in a document: enough to bring the same bytes in elsewhere."""

    name: str
    source: str
    sha256: str


class AliasEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where an alias points, by digest: numbers differ between homes, bytes do not."""

    model: str
    alias: str
    sha256: str


class Document(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """The whole desired state. Never secrets, only references to them."""

    models: tuple[ModelEntry, ...] = ()
    aliases: tuple[AliasEntry, ...] = ()
    deployments: tuple[Deployment, ...] = ()


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One difference between a document and what is. ``act``: create, change, remove, import."""

    act: str
    kind: str
    name: str
    fields: tuple[str, ...] = ()


class Deployments:
    """Reads and writes deployments."""

    def __init__(self, database: Database, registry: Registry, settings: Runtime) -> None:
        self._database = database
        self._registry = registry
        self._settings = settings
        self._plans: list[Plan] | None = None

    def all(self) -> list[Deployment]:
        """Return every deployment, by name."""
        with self._database.transaction() as connection:
            rows = desired.deployments(connection)
        return [msgspec.json.decode(row.document, type=Deployment) for row in rows]

    def updated(self) -> Mapping[str, float]:
        """Return when each deployment was last changed."""
        with self._database.transaction() as connection:
            return {row.name: row.updated for row in desired.deployments(connection)}

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
            self._plans = [plan(each, self._registry, self._settings) for each in self.all()]
        return self._plans

    def forget_plans(self) -> None:
        """Call when models, aliases or launch settings changed."""
        self._plans = None

    def document(self) -> Document:
        """Return the whole desired state."""
        models: list[ModelEntry] = []
        aliases: list[AliasEntry] = []
        for name in self._registry.names():
            versions = self._registry.versions(name)
            models += [
                ModelEntry(name=name, source=version.row.source, sha256=version.row.digest)
                for version in versions
            ]
            digests = {version.row.number: version.row.digest for version in versions}
            aliases += [
                AliasEntry(model=name, alias=alias, sha256=digests[number])
                for alias, number in sorted(self._registry.aliases(name).items())
            ]
        return Document(models=tuple(models), aliases=tuple(aliases), deployments=tuple(self.all()))

    def changes(self, document: Document) -> list[Change]:
        """Return what applying a document would do; a document is the whole of its deployments."""
        present = self.document()
        found = [
            Change(act="import", kind="model", name=f"{entry.name}@{entry.sha256[:12]}")
            for entry in document.models
            if (entry.name, entry.sha256) not in {(m.name, m.sha256) for m in present.models}
        ]
        found += [
            Change(act="change", kind="alias", name=f"{entry.model}:{entry.alias}")
            for entry in document.aliases
            if entry not in present.aliases
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

    def point_aliases(self, entries: Iterable[AliasEntry], now: float, by: str) -> None:
        """Move aliases to where a document wants them, as far as the versions are here."""
        for entry in entries:
            try:
                versions = self._registry.versions(entry.model)
            except FreeholdError:
                continue
            number = next((v.row.number for v in versions if v.row.digest == entry.sha256), None)
            if (
                number is not None
                and self._registry.aliases(entry.model).get(entry.alias) != number
            ):
                self._registry.promote(entry.model, entry.alias, number, now, by)
        self.forget_plans()


def read_document(text: str) -> Document:
    """Read and check a document; nothing is changed when any line of it is wrong."""
    try:
        document = msgspec.convert(tomllib.loads(text), Document)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise Invalid("invalid.document", f"the document is wrong: {error}") from error
    names = [deployment.name for deployment in document.deployments]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise Invalid("invalid.document", f"the deployment {double} stands there twice")
    for deployment in document.deployments:
        check(deployment)
    return document


def write_document(document: Document) -> str:
    """Return a document as TOML; ``read_document`` gives the same back."""
    tables = [
        f"[[{kind}]]\n{tomli_w.dumps(_set_fields(item))}"
        for kind in Document.__struct_fields__
        for item in getattr(document, kind)
    ]
    return "\n".join(tables)


def _set_fields(item: msgspec.Struct) -> dict[str, object]:
    fields: dict[str, object] = msgspec.to_builtins(item)
    return {name: value for name, value in fields.items() if value is not None}


def _differing(one: Deployment, other: Deployment) -> tuple[str, ...]:
    fields = Deployment.__struct_fields__
    return tuple(name for name in fields if getattr(one, name) != getattr(other, name))
