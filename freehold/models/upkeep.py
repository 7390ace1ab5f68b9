"""Keeping what is kept: garbage out, cold versions packed, every byte read again in time.

Nothing here takes a live blob: garbage is what no version refers to, looked up in the transaction
that an import would have to pass; what deployments want, and what was asked for a moment ago, is
never packed.
"""

import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from freehold.errors import Broken, FreeholdError, Invalid, Missing, Unavailable
from freehold.models.gguf import read_header
from freehold.models.source import Progress
from freehold.settings import Registry as Settings
from freehold.store import versions
from freehold.store.blobs import Blobs
from freehold.store.checks import Check, checks, forget_checks, keep_check
from freehold.store.chunks import Recipe, shared
from freehold.store.database import Database

LOOSE_AFTER = 3600.0
"""Seconds that bytes may lie there before a version refers to them: those of an import under way.

Should one take longer, it is told that its bytes are gone, and fetches them again.
"""
HANDED_OUT = 600.0
"""Seconds that whoever asked for a blob's path has until it must be seen to use it."""
WORTH_IT = 0.1
"""Share of a blob that others must have too for packing it to be worth its unpacking."""


class Loose(msgspec.Struct, frozen=True, kw_only=True):
    """Something that would be, or was, deleted. ``kind``: blob or download."""

    kind: str
    name: str
    bytes: int


class Packing(msgspec.Struct, frozen=True, kw_only=True):
    """A blob that would be, or was, packed; ``shared`` bytes of it others have too."""

    digest: str
    bytes: int
    shared: int
    packed: bool = False


class Collected(msgspec.Struct, frozen=True, kw_only=True):
    """What collecting did, or would do. ``chunks`` are the bytes of chunks nobody needs."""

    planned: bool
    loose: list[Loose]
    packing: list[Packing]
    chunks: int
    before: int
    after: int


class Storage(msgspec.Struct, frozen=True, kw_only=True):
    """What the registry's bytes come to. ``logical`` is what they were without sharing."""

    versions: int
    files: int
    packed: int
    logical: int
    stored: int
    unchecked: int
    oldest_check: float | None
    damaged: list[str]


class Pace:
    """A progress that waits as long as a speed in bytes a second asks for."""

    def __init__(self, rate: float, stopping: threading.Event) -> None:
        self._rate, self._stopping = rate, stopping
        self._begun, self._last = time.monotonic(), 0

    def __call__(self, done: int, _total: int) -> None:
        if done < self._last:  # the next file
            self._begun = time.monotonic()
        self._last = done
        ahead = done / self._rate - (time.monotonic() - self._begun)
        if self._stopping.wait(max(0.0, ahead)):
            raise Unavailable("unavailable.stopping", "Freehold is stopping: ask again later")


class Upkeep:
    """``in_use`` returns the digests that deployments want or engines run, from any thread."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        blobs: Blobs,
        scratch: Path,
        in_use: Callable[[], Collection[str]],
        clock: Callable[[], float],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """``changed`` is called, from any thread, when a blob's damage was found or healed."""
        self._settings = settings
        self._database = database
        self._blobs = blobs
        self._scratch = scratch
        self._in_use = in_use
        self._clock = clock
        self._changed = changed
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End what runs at its next report of progress."""
        self._stopping.set()

    def verify(self, digest: str, progress: Callable[[int, int], None] | None = None) -> None:
        """Read a blob whole, remember what was found, and raise when it is damaged."""
        try:
            self._blobs.verify(digest, progress)
        except (Missing, Broken) as error:
            self._remember(digest, error.message)
            raise
        self._remember(digest, None)

    def due(self) -> list[str]:
        """Return the digests to be read again now, the longest unread first."""
        if not self._settings.verify_every:
            return []
        with self._database.reading() as connection:
            used = versions.used_artifacts(connection)
            known = checks(connection)
        before = self._clock() - self._settings.verify_every
        last = {a.digest: known[a.digest].at if a.digest in known else 0.0 for a in used}
        return sorted((d for d, at in last.items() if at <= before), key=lambda d: (last[d], d))

    def verify_due(self) -> int:
        """Read what is due, no faster than allowed; return how many damaged blobs were found."""
        found = 0
        for digest in self.due():
            try:
                self.verify(digest, Pace(self._settings.verify_rate, self._stopping))
            except Unavailable:
                return found
            except FreeholdError:
                found += 1
        return found

    def verify_all(self, progress: Progress) -> int:
        """Read everything that versions are made of; return how many files, all of them intact.

        Goes on after a damaged one; then ``Broken`` names all of those.
        """
        with self._database.reading() as connection:
            used = versions.used_artifacts(connection)
        total, before, damaged = sum(artifact.bytes for artifact in used), 0, []
        for artifact in used:

            def report(done: int, _of: int, before: int = before) -> None:
                progress("verify", before + done, total)

            try:
                self.verify(artifact.digest, report)
            except (Missing, Broken):
                damaged.append(f"sha256:{artifact.digest}")
            before += artifact.bytes
        if damaged:
            text = f"{len(damaged)} of {len(used)} files are damaged: {', '.join(damaged)[:2000]}"
            raise Broken(
                "broken.blob", f"{text}; freehold model show says whose, import them again"
            )
        return len(used)

    def storage(self) -> Storage:
        """Return what everything takes, and how it was found."""
        with self._database.reading() as connection:
            used = versions.used_artifacts(connection)
            count = sum(
                len(versions.versions_of(connection, m)) for m in versions.model_names(connection)
            )
            known = checks(connection, [artifact.digest for artifact in used])
        damaged = sorted(check.digest for check in known.values() if check.damage)
        return Storage(
            versions=count,
            files=len(used),
            packed=sum(self._blobs.is_packed(artifact.digest) for artifact in used),
            logical=sum(artifact.bytes for artifact in used),
            stored=self._blobs.stored(),
            unchecked=len(used) - len(known),
            oldest_check=min((check.at for check in known.values()), default=None),
            damaged=damaged,
        )

    def collect(
        self, progress: Progress, *, plan: bool = False, pack_after: float | None = None
    ) -> Collected:
        """Delete garbage and pack what is cold, or say what would be; ``pack_after`` in seconds."""
        before = self._blobs.stored()
        loose = [*self._loose_blobs(plan=plan), *self._stale_downloads(plan=plan)]
        after = self._settings.pack_after if pack_after is None else pack_after
        wait = after if pack_after is not None or after else None
        packing = [] if wait is None else self._pack(progress, wait, plan=plan)
        freed = self._blobs.collect(plan=plan)
        return Collected(
            planned=plan,
            loose=loose,
            packing=packing,
            chunks=freed,
            before=before,
            after=self._blobs.stored(),
        )

    def _remember(self, digest: str, damage: str | None) -> None:
        with self._database.transaction() as connection:
            before = checks(connection, [digest]).get(digest)
            keep_check(connection, Check(digest=digest, at=self._clock(), damage=damage))
        if damage != (before.damage if before else None):
            self._changed()

    def tidy(self) -> Collected:
        """Collect by itself, no faster than reading is allowed."""
        pace = Pace(self._settings.verify_rate, self._stopping)
        return self.collect(lambda _stage, done, total: pace(done, total))

    def whole(self, digest: str) -> Path:
        """Return a blob's path for an engine that is about to load it: every byte was read."""
        if self._blobs.is_packed(digest):
            try:
                return self._blobs.path(digest)
            except (Missing, Broken) as error:
                self._remember(digest, error.message)
                raise
        self.verify(digest)
        return self._blobs.path(digest)

    def _loose_blobs(self, *, plan: bool) -> list[Loose]:
        with self._database.transaction() as connection:
            used = {artifact.digest for artifact in versions.used_artifacts(connection)}
            found = [
                Loose(kind="blob", name=digest, bytes=self._blobs.size(digest))
                for digest in sorted(set(self._blobs.digests()) - used)
                if self._blobs.is_packed(digest) or self._blobs.unused_for(digest) >= LOOSE_AFTER
            ]
            # Within: an import that is about to register these bytes waits, and sees them gone.
            for each in [] if plan else found:
                self._blobs.remove(each.name)
            if not plan:
                forget_checks(connection)
        return found

    def _stale_downloads(self, *, plan: bool) -> list[Loose]:
        found = []
        now = self._clock()
        for folder in sorted(self._scratch.iterdir()) if self._scratch.is_dir() else ():
            files = [folder, *folder.rglob("*")]
            with suppress(FileNotFoundError):
                stats = [path.stat() for path in files]
                if now - max(stat.st_mtime for stat in stats) < self._settings.scratch_keep:
                    continue
                size = sum(stat.st_size for stat in stats[1:])
                found.append(Loose(kind="download", name=folder.name, bytes=size))
                if not plan:
                    shutil.rmtree(folder, ignore_errors=True)
        return found

    def _pack(self, progress: Progress, wait: float, *, plan: bool) -> list[Packing]:
        with self._database.reading() as connection:
            used = {artifact.digest: artifact for artifact in versions.used_artifacts(connection)}
            damaged = {check.digest for check in checks(connection).values() if check.damage}
        wanted = set(self._in_use())
        cold = {
            digest
            for digest in used.keys() - damaged - wanted
            if not self._blobs.is_packed(digest) and self._blobs.unused_for(digest) >= wait
        }
        if not cold:
            return []
        recipes: dict[str, Recipe] = {}
        for digest in sorted(used.keys() - damaged):
            with suppress(FileNotFoundError):
                recipe = self._blobs.recipe(digest, parts_of, lambda n, of: progress("cut", n, of))
                if recipe is None:
                    self._remember(digest, "its bytes have changed on disk; import it again")
                else:
                    recipes[digest] = recipe
        common = shared(recipes)
        found = []
        for digest, recipe in recipes.items():
            if digest not in cold or common[digest] < recipe.bytes * WORTH_IT:
                continue
            packed = not plan and self._pack_one(digest, wait, progress)
            found.append(
                Packing(digest=digest, bytes=recipe.bytes, shared=common[digest], packed=packed)
            )
        return found

    def _pack_one(self, digest: str, wait: float, progress: Progress) -> bool:
        since = min(wait, HANDED_OUT)

        def is_wanted() -> bool:
            return self._blobs.unused_for(digest) < since or digest in self._in_use()

        try:
            self._blobs.pack(digest, is_wanted, lambda n, of: progress("pack", n, of))
        except Broken as error:  # it stays whole, and is not loaded any more if that is what it is
            with suppress(FreeholdError):
                self.verify(digest)
            progress(f"kept whole: {error.code}", 0, 0)
        return self._blobs.is_packed(digest)


def parts_of(path: Path) -> Iterable[int]:
    """Return where the tensors of a model file begin; nothing for a file that has none."""
    try:
        header = read_header(path)
    except Invalid:
        return ()
    return [header.data_offset + tensor.offset for tensor in header.tensors]
