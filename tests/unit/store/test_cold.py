"""Packed blobs: shared bytes once, and every blob whole or packed at any moment."""

import hashlib
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freehold.errors import DigestMismatch, FreeholdError, Missing, Unavailable
from freehold.store.blobs import Blobs, measure

PART = random.Random(7).randbytes(2_500_000)
FAMILY = [PART + random.Random(n).randbytes(600_000) for n in range(4)]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def store(blobs: Blobs, data: bytes) -> str:
    source = blobs.root.parent / "source"
    source.write_bytes(data)
    return blobs.add(source, move=False)[0]


def pack(blobs: Blobs, name: str) -> int:
    assert blobs.recipe(name, lambda _: [len(PART)]) is not None
    return blobs.pack(name, lambda: False)


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs")


@pytest.fixture
def family(blobs: Blobs) -> list[str]:
    names = [store(blobs, data) for data in FAMILY]
    for name in names:
        blobs.recipe(name, lambda _: [len(PART)])
    return names


def test_a_packed_family_takes_what_is_in_it_once(blobs: Blobs, family: list[str]) -> None:
    before = blobs.stored()
    freed = sum(pack(blobs, name) for name in family)
    assert before - blobs.stored() == freed
    assert freed == 3 * len(PART)
    for name, data in zip(family, FAMILY, strict=True):
        assert blobs.has(name)
        assert blobs.is_packed(name)
        assert blobs.size(name) == blobs.verify(name) == len(data)
    assert sorted(blobs.digests()) == sorted(family)
    for name, data in zip(family, FAMILY, strict=True):
        assert blobs.path(name).read_bytes() == data
        assert blobs.path(name).stat().st_mode & 0o777 == 0o444
        assert not blobs.is_packed(name)


def test_chunks_are_borrowed_from_whole_siblings(blobs: Blobs, family: list[str]) -> None:
    assert pack(blobs, family[1]) == len(PART)
    assert blobs.path(family[1]).read_bytes() == FAMILY[1]


@pytest.mark.parametrize("packed_before", [False, True])
def test_a_lender_may_go(blobs: Blobs, family: list[str], packed_before: bool) -> None:
    for name in family[1:]:
        pack(blobs, name)
    if packed_before:
        pack(blobs, family[0])
    blobs.remove(family[0])
    assert not blobs.has(family[0])
    with pytest.raises(Missing):
        blobs.path(family[0])
    for _ in range(2):
        for name in family[1:]:
            blobs.verify(name)
        blobs.collect()
    assert not list((blobs.root / "lent").iterdir())
    assert blobs.path(family[2]).read_bytes() == FAMILY[2]


def test_the_last_one_leaves_nothing(blobs: Blobs, family: list[str]) -> None:
    for name in family[:2]:
        pack(blobs, name)
    for name in family:
        blobs.remove(name)
    promised = blobs.collect(plan=True)
    assert blobs.collect() >= promised > 0
    assert blobs.stored() == 0


def test_removing_without_anything_packed_frees_at_once(blobs: Blobs, family: list[str]) -> None:
    for name in family:
        blobs.remove(name)
    assert blobs.stored() == 0


def test_what_is_wanted_stays_whole(blobs: Blobs, family: list[str]) -> None:
    assert blobs.pack(family[0], lambda: True) == 0
    assert not blobs.is_packed(family[0])


def test_a_damaged_whole_is_never_given_up_for_chunks(blobs: Blobs, family: list[str]) -> None:
    place = blobs.path(family[0])
    place.chmod(0o600)
    with place.open("r+b") as file:
        file.seek(len(PART) + 5)
        file.write(b"\0" if FAMILY[0][len(PART) + 5] else b"\1")
    with pytest.raises(DigestMismatch):
        blobs.pack(family[0], lambda: False)
    assert place.exists()
    with pytest.raises(DigestMismatch):
        blobs.verify(family[0])


def test_a_damaged_file_gets_no_recipe(blobs: Blobs) -> None:
    name = store(blobs, FAMILY[0])
    place = blobs.path(name)
    place.chmod(0o600)
    with place.open("r+b") as file:
        file.write(b"XXXX")
    assert blobs.recipe(name, lambda _: []) is None
    assert not blobs.is_packed(name)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_flipped_byte_of_what_is_packed_is_found(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    blobs = Blobs(tmp_path_factory.mktemp("flip") / "blobs")
    names = [store(blobs, each[-700_000:]) for each in FAMILY[:2]]
    for name in names:
        blobs.recipe(name, lambda _: [100_000])
        blobs.pack(name, lambda: False)
    files = sorted((blobs.root / "chunks").glob("??/*"))
    victim = data.draw(st.sampled_from(files))
    at = data.draw(st.integers(0, victim.stat().st_size - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    victim.chmod(0o600)
    content = bytearray(victim.read_bytes())
    content[at] ^= bit
    victim.write_bytes(content)
    users = [name for name in names if victim.name in {c.digest for c in chunks_of(blobs, name)}]
    assert users
    for name in names:
        if name in users:
            with pytest.raises(DigestMismatch):
                blobs.verify(name)
            with pytest.raises(DigestMismatch):
                blobs.path(name)
        else:
            blobs.verify(name)


def chunks_of(blobs: Blobs, name: str) -> tuple[object, ...]:
    recipe = blobs.recipe(name, lambda _: [])
    assert recipe is not None
    return recipe.chunks


def test_importing_one_again_heals_its_siblings(blobs: Blobs, family: list[str]) -> None:
    for name in family:
        pack(blobs, name)
    for path in (blobs.root / "chunks").glob("??/*"):
        path.chmod(0o600)
        path.write_bytes(b"rot" + path.read_bytes()[3:])
    with pytest.raises(DigestMismatch, match="import it again"):
        blobs.verify(family[1])
    for data in FAMILY[:2]:
        store(blobs, data)
    assert blobs.path(family[1]).read_bytes() == FAMILY[1]
    with pytest.raises(DigestMismatch):
        blobs.verify(family[2])  # its own part is still damaged
    store(blobs, FAMILY[2])
    blobs.verify(family[2])


def test_a_recipe_that_cannot_be_read_is_damage(blobs: Blobs, family: list[str]) -> None:
    pack(blobs, family[0])
    recipe = blobs.root / "recipes" / family[0]
    recipe.chmod(0o600)
    recipe.write_bytes(b"{")
    with pytest.raises(FreeholdError, match="import it again"):
        blobs.verify(family[0])
    store(blobs, FAMILY[0])
    blobs.verify(family[0])


def test_a_full_disk_gives_up_nothing(blobs: Blobs, family: list[str]) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(Unavailable, match="no space left"):
            blobs.pack(family[0], lambda: False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((blobs.root / "incoming").iterdir())
    pack(blobs, family[0])
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(Unavailable, match="no space left"):
            blobs.path(family[0])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((blobs.root / "incoming").iterdir())
    assert blobs.path(family[0]).read_bytes() == FAMILY[0]


def test_readers_and_packers_at_once(blobs: Blobs, family: list[str]) -> None:
    """What is asked for is always whole in the reader's hands, whatever is packed meanwhile."""
    stop, wrong = threading.Event(), []

    def churn() -> None:
        while not stop.is_set():
            for name in family[1:]:
                blobs.pack(name, lambda: False)
            blobs.collect()

    def read() -> None:
        try:
            for turn in range(30):
                name = family[1 + turn % 3]
                with blobs.path(name).open("rb") as file:
                    if digest(file.read()) != name:
                        wrong.append(name)
                blobs.verify(name)
        except FileNotFoundError:
            pass  # packed again between being named and opened: whoever is wanted is not packed
        except FreeholdError as error:
            wrong.append(error.message)

    packer = threading.Thread(target=churn)
    readers = [threading.Thread(target=read) for _ in range(2)]
    packer.start()
    for thread in readers:
        thread.start()
    for thread in readers:
        thread.join()
    stop.set()
    packer.join()
    assert wrong == []
    for name in family:
        blobs.verify(name)


def test_what_is_packed_before_it_is_opened_is_no_damage(
    blobs: Blobs, family: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = family[1]
    whole = blobs.path(name)

    def late(path: Path, progress: object) -> tuple[str, int]:
        assert path == whole
        pack(blobs, name)
        return measure(path)

    monkeypatch.setattr("freehold.store.blobs.measure", late)
    assert blobs.verify(name) == len(FAMILY[1])
    assert blobs.is_packed(name)


CHURN = """
import sys
from pathlib import Path
from freehold.store.blobs import Blobs
blobs = Blobs(Path(sys.argv[1]))
names = sys.argv[2:]
print("go", flush=True)
while True:
    for name in names:
        blobs.pack(name, lambda: False)
    blobs.collect()
    for name in names[::2]:
        blobs.path(name)
"""


def test_kill_9_at_any_moment_loses_nothing(blobs: Blobs, family: list[str]) -> None:
    for turn in range(6):
        child = subprocess.Popen(
            [sys.executable, "-c", CHURN, str(blobs.root), *family],
            stdout=subprocess.PIPE, env={**os.environ},
        )  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline() == b"go\n"
        time.sleep(0.02 + 0.03 * turn)
        child.kill()
        child.wait()
        child.stdout.close()
        again = Blobs(blobs.root)
        again.clear_incoming()
        assert sorted(set(again.digests())) == sorted(family)
        for name in family:
            again.verify(name)
    again.collect()
    for name in family:
        again.remove(name)
    again.collect()
    assert again.stored() == 0
