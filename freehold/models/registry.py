"""The registry: models, immutable versions, aliases that move and roll back at once."""

import hashlib
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Literal

import msgspec

from freehold.errors import Conflict, Missing
from freehold.models.admission import check_licence, check_released
from freehold.models.identify import digest_of
from freehold.models.lineage import nearest_first
from freehold.models.manifest import Manifest
from freehold.models.naming import check_alias, check_name, is_number
from freehold.models.scan.finding import Finding, decode, encode, unknown_in
from freehold.settings import Licences
from freehold.store import cards, reports, versions
from freehold.store.blobs import Blobs
from freehold.store.cards import SignatureRow
from freehold.store.checks import Check, checks, forget_checks, keep_check
from freehold.store.database import Database
from freehold.store.quarantine import Quarantine, acceptances, isolate, quarantine_of
from freehold.store.versions import AliasMove, Artifact, Dependency, SettingsRow, VersionRow

LEFT_OUT = "left_out"
"""The report that lists the files which were no part of what was imported."""
PRODUCTION = "production"
ANY_LICENCE = Licences()


class LaunchSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a version wants to be run; each revision is kept. ``context`` is in tokens.

    ``cache_type`` is that of the key-value cache; ``draft`` is ``NAME[:VERSION]`` of a model with
    the same vocabulary that guesses ``drafted`` tokens ahead. A compression finds them by
    measuring; a deployment that says otherwise goes before.
    """

    context: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | None = None
    slots: Annotated[int, msgspec.Meta(ge=1, le=4096)] | None = None
    threads: Annotated[int, msgspec.Meta(ge=1, le=4096)] | None = None
    cache_type: Literal["f16", "q8_0", "q4_0"] | None = None
    draft: Annotated[str, msgspec.Meta(min_length=1, max_length=300)] | None = None
    drafted: Annotated[int, msgspec.Meta(ge=1, le=64)] | None = None


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """A version with everything that is known of it.

    ``checked`` is when all of its bytes were last read, in epoch seconds; ``damage`` is what was
    wrong with them then: such a version is not loaded.
    """

    row: VersionRow
    manifest: Manifest
    artifacts: tuple[Artifact, ...]
    dependencies: tuple[Dependency, ...]
    settings: LaunchSettings
    settings_revision: int
    checked: float | None = None
    damage: str | None = None
    quarantine: Quarantine | None = None


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """What the model path hands over to become a version; with ``findings``, into quarantine."""

    model: str
    manifest: Manifest
    artifacts: tuple[Artifact, ...]
    format: str
    licence: str | None
    notice: str | None
    source: str
    resolved: str
    dependencies: tuple[Dependency, ...] = ()
    findings: tuple[Finding, ...] = ()
    card: str | None = None
    signatures: tuple[bytes, ...] = ()
    left_out: tuple[str, ...] = ()


class Registry:
    """Reads and writes models. Rules are here, rows in ``store.versions``, bytes in blobs."""

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        licences: Licences = ANY_LICENCE,
        admits: Callable[[str, Sequence[Artifact]], None] = lambda _by, _artifacts: None,
    ) -> None:
        """``admits`` raises when a principal has no room for what would become a version."""
        self._database = database
        self._blobs = blobs
        self._licences = licences
        self.admits = admits
        self.isolated: Callable[[Version, str], None] = lambda _version, _by: None
        """Called, from any thread, with a version that the scan has put into quarantine just now,
        and whose import did that."""

    def register(self, draft: Draft, now: float, by: str) -> tuple[Version, bool]:
        """Make a version of a draft and say whether it is new.

        The same bytes under the same name are the same version, so importing twice, also at once,
        gives one. The first version of a model becomes its ``production``, if it may be used.

        Findings that nobody has seen take a version out of use that was in use until now, and end
        a release that was for others.
        """
        check_name(draft.model)
        digest = digest_of(draft.artifacts, draft.format)
        with self._database.transaction() as connection:
            present = versions.versions_of(connection, draft.model)
            same = next((row for row in present if row.digest == digest), None)
            for artifact in draft.artifacts:  # a removal may have taken them meanwhile
                self._blobs.size(artifact.digest)
                keep_check(connection, Check(digest=artifact.digest, at=now))
            if same is None:
                self.admits(by, draft.artifacts)
                row = VersionRow(
                    model=draft.model,
                    number=versions.next_number(connection, draft.model),
                    digest=digest,
                    bytes=sum(artifact.bytes for artifact in draft.artifacts),
                    format=draft.format,
                    manifest=msgspec.json.encode(draft.manifest).decode(),
                    licence=draft.licence,
                    notice=draft.notice,
                    source=draft.source,
                    resolved=draft.resolved,
                    created=now,
                    created_by=by,
                )
                versions.add_version(connection, row, draft.artifacts, draft.dependencies)
                _add_papers(connection, draft, row.number, now, by)
            number = same.number if same else row.number
            isolated = False
            if draft.findings:
                before = quarantine_of(connection, draft.model, number)
                if isolated := before is None or bool(
                    unknown_in(draft.findings, decode(before.findings))
                ):
                    isolate(connection, draft.model, number, encode(draft.findings), now)
            elif same is None and not versions.alias_history(connection, draft.model):
                first = AliasMove(
                    model=draft.model, alias=PRODUCTION, number=number, moved=now, moved_by=by
                )
                versions.move_alias(connection, first)
        found = self.version(draft.model, number)
        if isolated:
            self.isolated(found, by)
        return found, same is None

    def names(self) -> list[str]:
        """Return the names of all models."""
        with self._database.reading() as connection:
            return versions.model_names(connection)

    def versions(self, model: str) -> list[Version]:
        """Return a model's versions, oldest first; ``Missing`` when there is no such model."""
        with self._database.reading() as connection:
            rows = versions.versions_of(connection, model)
            names = versions.model_names(connection) if not rows else []
        if not rows:
            near = get_close_matches(model, names, 1)
            hint = f"did you mean {near[0]}?" if near else "see freehold model list"
            raise Missing("missing.model", f"no model {model!r:.80}: {hint}", param="model")
        return [self.version(model, row.number) for row in rows]

    def version(self, model: str, number: int) -> Version:
        """Return one version by its number."""
        with self._database.reading() as connection:
            rows = versions.versions_of(connection, model)
            row = next((row for row in rows if row.number == number), None)
            if row is None:
                known = ", ".join(str(row.number) for row in rows) or "none"
                raise Missing(
                    "missing.version", f"{model} has no version {number}: there is {known}"
                )
            revisions = versions.settings_of(connection, model, number)
            artifacts = tuple(versions.artifacts_of(connection, model, number))
            found = checks(connection, [artifact.digest for artifact in artifacts])
            isolated = quarantine_of(connection, model, number)
            return Version(
                row=row,
                manifest=msgspec.json.decode(row.manifest, type=Manifest),
                artifacts=artifacts,
                checked=min((check.at for check in found.values()), default=None),
                damage=next((check.damage for check in found.values() if check.damage), None),
                dependencies=tuple(versions.dependencies_of(connection, model, number)),
                settings=_newest(revisions),
                settings_revision=revisions[-1].revision if revisions else 0,
                quarantine=isolated,
            )

    def resolve(self, reference: str) -> Version:
        """Return the version that ``NAME``, ``NAME:NUMBER`` or ``NAME:ALIAS`` means, to be used.

        A bare name means its ``production`` alias. ``Refused`` when nobody may use it: see
        ``admit``.
        """
        model, _, label = reference.partition(":")
        label = label or PRODUCTION
        found = self.versions(model)
        if is_number(label):
            return self.admit(self.version(model, int(label)))
        number = self.aliases(model).get(label)
        if number is None:
            if label == PRODUCTION and len(found) == 1:
                return self.admit(found[0])
            known = ", ".join(sorted(self.aliases(model))) or "none"
            raise Missing("missing.alias", f"{model} has no alias {label!r:.80}: there is {known}")
        return self.admit(next(version for version in found if version.row.number == number))

    def admit(self, version: Version) -> Version:
        """Return a version that may be used: not in quarantine, its licence allowed or accepted.

        Whoever runs, serves, converts or hands on what a version holds asks this first. Raises
        ``Refused`` with what to do.
        """
        check_released(version.row, version.quarantine)
        with self._database.reading() as connection:
            accepted = acceptances(connection, version.row.model)
        told = (version.row.licence, version.manifest.licence)
        check_licence(version.row, told, self._licences, accepted)
        return version

    def aliases(self, model: str) -> dict[str, int]:
        """Return where each alias of a model points."""
        current: dict[str, int] = {}
        for move in self.alias_history(model):
            current.setdefault(move.alias, move.number)
        return current

    def alias_history(self, model: str) -> list[AliasMove]:
        """Return every move of a model's aliases, newest first."""
        with self._database.reading() as connection:
            return versions.alias_history(connection, model)

    def promote(self, model: str, alias: str, number: int, now: float, by: str) -> None:
        """Point an alias at a version."""
        check_alias(alias)
        version = self.version(model, number)
        check_released(version.row, version.quarantine)
        move = AliasMove(model=model, alias=alias, number=number, moved=now, moved_by=by)
        with self._database.transaction() as connection:
            versions.move_alias(connection, move)

    def roll_back(self, model: str, alias: str, now: float, by: str) -> int:
        """Point an alias back to the version it had before its present one."""
        moves = [move for move in self.alias_history(model) if move.alias == alias]
        if not moves:
            raise Missing("missing.alias", f"{model} has no alias {alias!r:.80}")
        earlier = next((move for move in moves if move.number != moves[0].number), None)
        if earlier is None:
            raise Conflict(
                "conflict.no_earlier_version", f"{model}:{alias} has never pointed elsewhere"
            )
        self.promote(model, alias, earlier.number, now, by)
        return earlier.number

    def set_launch_settings(
        self, model: str, number: int, settings: LaunchSettings, now: float, by: str
    ) -> int:
        """Append a revision of a version's launch settings; return its number."""
        self.version(model, number)
        text = msgspec.json.encode(settings).decode()
        with self._database.transaction() as connection:
            return versions.add_settings(connection, model, number, text, now, by)

    def launch_settings(self, model: str, number: int) -> list[SettingsRow]:
        """Return every revision of a version's launch settings, oldest first."""
        with self._database.reading() as connection:
            return versions.settings_of(connection, model, number)

    def keep_report(
        self, model: str, number: int, document: str, now: float, kind: str = "compression"
    ) -> None:
        """Keep what was measured of a version, as JSON text."""
        with self._database.transaction() as connection:
            reports.keep(connection, model, number, kind, document, now)

    def report(self, model: str, number: int, kind: str = "compression") -> str | None:
        """Return what was measured of a version, where that was done."""
        with self._database.reading() as connection:
            return reports.find(connection, model, number, kind)

    def left_out(self, model: str, number: int) -> tuple[str, ...]:
        """Return the files that lay beside a version when it was imported, and were left there."""
        text = self.report(model, number, LEFT_OUT)
        return msgspec.json.decode(text, type=tuple[str, ...]) if text else ()

    def remove(self, model: str, number: int) -> int:
        """Remove a version and the blobs nothing else uses; return the bytes given back."""
        version = self.version(model, number)
        aliased = [alias for alias, at in self.aliases(model).items() if at == number]
        if aliased and len(self.versions(model)) > 1:
            raise Conflict(
                "conflict.aliased",
                f"{model}:{number} is {', '.join(aliased)}: move the alias first",
            )
        with self._database.transaction() as connection:
            _refuse_needed(versions.dependents_of(connection, model, number), f"{model}:{number}")
            versions.remove_version(connection, model, number)
            loose = [
                artifact
                for artifact in version.artifacts
                if not versions.is_used(connection, artifact.digest)
            ]
            # Within: an import that is about to register these bytes waits, and sees them gone.
            for artifact in loose:
                self._blobs.remove(artifact.digest)
        return sum(artifact.bytes for artifact in loose)

    def discard(self, artifacts: Sequence[Artifact]) -> None:
        """Take away bytes that were stored and shall not become a version after all."""
        with self._database.transaction() as connection:
            for artifact in artifacts:
                if not versions.is_used(connection, artifact.digest):
                    self._blobs.remove(artifact.digest)

    def remove_model(self, model: str) -> int:
        """Remove all versions of a model; return the bytes given back."""
        artifacts = [each for version in self.versions(model) for each in version.artifacts]
        with self._database.transaction() as connection:
            _refuse_needed(versions.dependents_of(connection, model, None), model)
            for row in versions.versions_of(connection, model):
                versions.remove_version(connection, model, row.number)
            loose = [a for a in artifacts if not versions.is_used(connection, a.digest)]
            for artifact in loose:
                self._blobs.remove(artifact.digest)
        return sum(artifact.bytes for artifact in loose)

    def sweep(self) -> int:
        """Delete bytes that belong to no version, left by a kill; return how many blobs.

        Only while nothing is imported: at the start.
        """
        with self._database.transaction() as connection:
            used = {artifact.digest for artifact in versions.used_artifacts(connection)}
            loose = [digest for digest in self._blobs.digests() if digest not in used]
            for digest in loose:
                self._blobs.remove(digest)
            forget_checks(connection)
        return len(loose)

    def lineage(self, version: Version) -> tuple[str, ...]:
        """Return what a version came from, nearest first: parents here, then named bases."""
        return nearest_first(
            version.dependencies, lambda model, number: self.version(model, number).dependencies
        )


def _refuse_needed(dependents: Sequence[str], name: str) -> None:
    if dependents:
        raise Conflict(
            "conflict.needed", f"{name} is the base of {', '.join(dependents)}: remove those first"
        )


def _add_papers(connection: Any, draft: Draft, number: int, now: float, by: str) -> None:
    if draft.card:
        cards.set_card(connection, draft.model, number, draft.card)
    if draft.left_out:
        text = msgspec.json.encode(draft.left_out).decode()
        reports.keep(connection, draft.model, number, LEFT_OUT, text, now)
    for bundle in draft.signatures:
        row = SignatureRow(
            model=draft.model,
            number=number,
            id=hashlib.sha256(bundle).hexdigest(),
            bundle=bundle,
            created=now,
            created_by=by,
        )
        cards.add_signature(connection, row)


def _newest(revisions: Sequence[SettingsRow]) -> LaunchSettings:
    if not revisions:
        return LaunchSettings()
    try:
        return msgspec.json.decode(revisions[-1].document, type=LaunchSettings)
    except msgspec.DecodeError:  # from before there were bounds: as if nothing was set
        return LaunchSettings()
