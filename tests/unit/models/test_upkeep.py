"""Garbage, packing, checks: nothing live is ever taken."""

import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from freehold.errors import Broken, DigestMismatch, Exhausted
from freehold.models.deploy import plan
from freehold.models.deployment import Deployment
from freehold.models.gguf import read_header
from freehold.models.manifest import describe
from freehold.models.registry import Draft, Registry, Version
from freehold.models.room import Room
from freehold.models.upkeep import LOOSE_AFTER, Upkeep, parts_of
from freehold.settings import Registry as Settings
from freehold.settings import Runtime
from freehold.store.blobs import Blobs
from freehold.store.credentials import KeyRow, add_key
from freehold.store.database import Database
from freehold.store.versions import Artifact
from tests.make_gguf import gguf

BIG = 1_000_000
SHARED = random.Random(1).randbytes(BIG * 4)


class Shelf:
    """A registry in a folder, with a clock of its own."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.now = 1_000_000.0
        self.folder = folder
        self.settings = msgspec.convert(settings, Settings)
        self.database = Database(folder / "f.db")
        self.blobs = Blobs(folder / "blobs")
        self.room = Room(self.settings, self.database, self.blobs)
        self.registry = Registry(self.database, self.blobs, admits=self.room.admits)
        self.in_use: set[str] = set()
        self.changes: list[None] = []
        self.upkeep = Upkeep(
            self.settings, self.database, self.blobs, folder / "scratch",
            lambda: self.in_use, lambda: self.now, lambda: self.changes.append(None),
        )  # fmt: skip

    def store(self, seed: int) -> Artifact:
        own = random.Random(f"own {seed}").randbytes(400_000)
        file = self.folder / f"{seed}.gguf"
        tensors = [("shared", [BIG], 0, 0), ("own", [100_000], 0, BIG * 4)]
        file.write_bytes(gguf({"general.architecture": "llama"}, tensors, SHARED + own))
        self.manifest = describe(read_header(file))
        digest, size = self.blobs.add(file, move=True)
        return Artifact(name="model.gguf", digest=digest, bytes=size)

    def add(self, seed: int, model: str = "m", by: str = "me") -> Version:
        artifact = self.store(seed)
        draft = Draft(
            model=model, manifest=self.manifest, format="gguf", licence=None, notice=None,
            artifacts=(artifact,), source="s", resolved="r",
        )  # fmt: skip
        return self.registry.register(draft, self.now, by)[0]

    def age(self, digest: str, seconds: float) -> None:
        path = self.blobs.root / "sha256" / digest[:2] / digest
        at = time.time() - seconds
        os.utime(path, (at, at))

    def rot(self, digest: str) -> None:
        path = self.blobs.path(digest)
        path.chmod(0o600)
        with path.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            last = file.read(1)[0]
            file.seek(-1, os.SEEK_END)
            file.write(bytes([last ^ 1]))

    def collect(self, *, plan: bool = False, pack_after: float | None = 0.0):
        return self.upkeep.collect(lambda *_: None, plan=plan, pack_after=pack_after)


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    made = Shelf(tmp_path)
    yield made
    made.database.close()


def test_a_cold_family_is_packed_and_a_plan_changes_nothing(shelf: Shelf) -> None:
    digests = [shelf.add(seed).row.digest for seed in range(3)]
    before = shelf.blobs.stored()
    planned = shelf.collect(plan=True)
    assert {each.digest for each in planned.packing} == set(digests)
    assert not any(shelf.blobs.is_packed(digest) for digest in digests)
    done = shelf.collect()
    assert all(each.packed and each.shared >= BIG * 4 for each in done.packing)
    assert done.after == shelf.blobs.stored() < before - 2 * BIG * 4 + 20_000
    stored = shelf.upkeep.storage()
    assert (stored.packed, stored.files, stored.versions) == (3, 3, 3)
    assert stored.logical > 2 * stored.stored
    assert shelf.collect().packing == []
    for digest in digests:
        assert shelf.upkeep.whole(digest).stat().st_size == shelf.blobs.size(digest)


def test_what_is_used_or_young_or_alone_stays_whole(shelf: Shelf) -> None:
    used, young, cold = (shelf.add(seed).row.digest for seed in range(3))
    shelf.in_use = {used}
    for digest in (used, cold):
        shelf.age(digest, 5000)
    done = shelf.collect(pack_after=3600)
    assert [each.digest for each in done.packing] == [cold]
    assert not shelf.blobs.is_packed(used)
    assert not shelf.blobs.is_packed(young)


def test_a_file_that_shares_nothing_stays_whole(shelf: Shelf) -> None:
    digest = shelf.add(1).row.digest
    assert shelf.collect().packing == []
    assert not shelf.blobs.is_packed(digest)


def test_nothing_is_packed_by_itself_when_that_is_off(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, pack_after=0)
    for seed in range(2):
        shelf.age(shelf.add(seed).row.digest, 1e6)
    assert shelf.upkeep.tidy().packing == []
    assert len(shelf.collect(pack_after=0).packing) == 2
    shelf.database.close()


def test_bytes_of_an_import_under_way_are_not_garbage(shelf: Shelf) -> None:
    shelf.add(1)
    coming, left = shelf.store(2), shelf.store(3)
    shelf.age(left.digest, LOOSE_AFTER + 10)
    done = shelf.collect(plan=True)
    assert [each.name for each in done.loose] == [left.digest]
    assert shelf.blobs.has(left.digest)
    shelf.collect()
    assert not shelf.blobs.has(left.digest)
    assert shelf.blobs.has(coming.digest)


def test_imports_deploys_and_garbage_collection_at_once(shelf: Shelf) -> None:
    """Whoever was told that a version exists can read it, whatever is collected meanwhile."""
    stop, wrong = threading.Event(), []

    def collect() -> None:
        while not stop.is_set():
            shelf.collect()

    def load(digest: str) -> None:
        shelf.in_use = shelf.in_use | {digest}
        path = shelf.upkeep.whole(digest)
        if not path.exists():
            wrong.append(digest)

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        for seed in range(12):
            version = shelf.add(seed, f"m{seed % 3}")
            load(version.row.digest)
            if seed % 3 == 2:
                shelf.in_use = set()
                gone = shelf.registry.remove_model(f"m{seed % 3}")
                assert gone
    finally:
        stop.set()
        thread.join()
    assert wrong == []
    for name in shelf.registry.names():
        for version in shelf.registry.versions(name):
            shelf.blobs.verify(version.row.digest)


def test_downloads_that_nobody_goes_on_with_are_deleted(shelf: Shelf) -> None:
    old, new = shelf.folder / "scratch" / "old", shelf.folder / "scratch" / "new"
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "model.gguf.part").write_bytes(b"part")
    shelf.now = time.time()
    for path in (old / "model.gguf.part", old):
        os.utime(path, (shelf.now - 8 * 86400,) * 2)
    done = shelf.collect()
    assert [(each.kind, each.name, each.bytes) for each in done.loose] == [("download", "old", 4)]
    assert not old.exists()
    assert new.exists()


@pytest.mark.parametrize("packed", [False, True])
def test_damage_is_marked_not_loaded_and_healed(shelf: Shelf, packed: bool) -> None:
    version = shelf.add(1)
    shelf.add(2, "other")
    digest = version.row.digest
    deployment = Deployment(name="d", model="m")
    assert plan(deployment, shelf.registry, Runtime()).reason is None
    if packed:
        shelf.collect()
        for chunk in (shelf.blobs.root / "chunks").glob("??/*"):
            chunk.chmod(0o600)
            chunk.write_bytes(b"no")
    else:
        shelf.rot(digest)
    with pytest.raises(DigestMismatch):
        shelf.upkeep.whole(digest)
    assert len(shelf.changes) == 1
    marked = shelf.registry.version("m", 1)
    assert marked.damage
    assert shelf.upkeep.storage().damaged == [digest]
    assert "damaged" in str(plan(deployment, shelf.registry, Runtime()).reason)
    with pytest.raises(Broken, match="damaged"):
        shelf.upkeep.verify_all(lambda *_: None)
    shelf.add(1)
    assert shelf.registry.version("m", 1).damage is None
    assert plan(deployment, shelf.registry, Runtime()).reason is None
    assert shelf.upkeep.whole(digest).exists()


def test_checks_come_due_and_the_oldest_first(shelf: Shelf) -> None:
    first = shelf.add(1).row.digest
    shelf.now += 100
    second = shelf.add(2).row.digest
    assert shelf.upkeep.due() == []
    shelf.now += 7 * 86400
    assert shelf.upkeep.due() == [first, second]
    shelf.rot(second)
    assert shelf.upkeep.verify_due() == 1
    assert shelf.upkeep.due() == []
    assert shelf.registry.version("m", 2).damage
    checked = shelf.registry.version("m", 1)
    assert (checked.checked, checked.damage) == (shelf.now, None)
    assert shelf.upkeep.storage().oldest_check == shelf.now


def test_checks_keep_to_their_speed_and_end_when_told(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, verify_rate=8_000_000, verify_every=1)
    digest = shelf.add(1).row.digest
    shelf.now += 10
    begun = time.monotonic()
    assert shelf.upkeep.verify_due() == 0
    assert time.monotonic() - begun >= 4.4e6 / 8e6 * 0.9
    shelf.now += 10
    shelf.upkeep.stop()
    assert shelf.upkeep.verify_due() == 0
    assert shelf.upkeep.due() == [digest]  # what was not read to its end is still due
    shelf.database.close()


def test_checks_can_be_off(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, verify_every=0)
    shelf.add(1)
    shelf.now += 1e9
    assert shelf.upkeep.due() == []
    shelf.database.close()


def test_parts_are_tensors_and_other_files_have_none(shelf: Shelf, tmp_path: Path) -> None:
    digest = shelf.add(1).row.digest
    starts = list(parts_of(shelf.blobs.path(digest)))
    assert starts[1] - starts[0] == BIG * 4
    other = tmp_path / "other"
    other.write_bytes(b"{}")
    assert list(parts_of(other)) == []


def test_quotas_of_home_principal_and_team(tmp_path: Path) -> None:
    size = 4_400_000
    shelf = Shelf(
        tmp_path, quota=3 * size + 100_000,
        quotas={"principal:ann": 2 * size + 100_000, "team:red": size + 100_000},
    )  # fmt: skip
    with shelf.database.transaction() as connection:
        add_key(connection, KeyRow(
            id="k", principal="bob", role="operator", digest="d", created=1.0, team="red",
        ))  # fmt: skip
    shelf.add(1, by="bob")
    with pytest.raises(Exhausted, match="team:red would take"), shelf.room.claim("bob") as claim:
        claim.need(size)
    with shelf.room.claim("cid") as claim:
        claim.need(size)
    with shelf.room.claim("ann") as claim, shelf.room.claim("ann") as other:
        claim.need(size)
        other.need(size - 200_000)
        with pytest.raises(Exhausted, match="this home"):  # what is on its way counts
            other.need(size + 1_200_000)
    report = claim.watch(lambda *_: None)
    report("verify", 10 * size, 10 * size)  # reading what is here brings nothing
    with pytest.raises(Exhausted, match="nothing was kept"):
        report("download", 1, 10 * size)
    shelf.add(2, by="ann")
    shelf.add(3, by="ann")
    with pytest.raises(Exhausted):  # also for those who never said how much it would be
        shelf.add(4, by="ann")
    assert [use.subject for use in shelf.room.uses()] == ["home", "principal:ann", "team:red"]
    assert shelf.room.uses()[2].bytes < size + 100_000
    shelf.database.close()


def test_a_damaged_version_may_be_replaced_at_the_quota(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, quota=4_410_000, quotas={"principal:me": 4_410_000})
    digest = shelf.add(1).row.digest
    with pytest.raises(Exhausted), shelf.room.claim("me") as claim:
        claim.need(4_400_000)
    shelf.rot(digest)
    with pytest.raises(DigestMismatch):
        shelf.upkeep.verify(digest)
    with shelf.room.claim("me") as claim:
        claim.need(4_400_000)
    shelf.add(1)
    shelf.database.close()
