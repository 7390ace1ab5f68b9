"""Bytes by digest: whole or not at all."""

import hashlib
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from freehold.errors import DigestMismatch, Missing, Unavailable
from freehold.store.blobs import Blobs

DATA = b"weights" * 1000
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    return path


@pytest.mark.parametrize("move", [False, True])
def test_in_and_out(blobs: Blobs, file: Path, move: bool) -> None:
    assert blobs.add(file, move=move) == (DIGEST, len(DATA))
    assert file.exists() is not move
    assert blobs.path(DIGEST).read_bytes() == DATA
    assert blobs.path(DIGEST).stat().st_mode & 0o777 == 0o444
    assert list(blobs.digests()) == [DIGEST]
    blobs.remove(DIGEST)
    with pytest.raises(Missing):
        blobs.path(DIGEST)


def test_the_same_twice_is_once(blobs: Blobs, file: Path) -> None:
    blobs.add(file, move=False)
    blobs.add(file, move=False)
    assert list(blobs.digests()) == [DIGEST]


@pytest.mark.parametrize("move", [False, True])
def test_another_digest_is_not_kept(blobs: Blobs, file: Path, move: bool) -> None:
    with pytest.raises(DigestMismatch, match="nothing was kept"):
        blobs.add(file, move=move, expected="0" * 64)
    assert list(blobs.digests()) == []
    assert not list((blobs.root / "incoming").iterdir())


def test_what_was_hashed_as_it_was_written_is_not_read_again(blobs: Blobs, file: Path) -> None:
    """Seen by bytes that are others: a move takes the word for it, a copy never does."""
    with pytest.raises(DigestMismatch):
        blobs.add(file, move=False, expected="0" * 64, is_hashed=True)
    assert blobs.add(file, move=True, expected="0" * 64, is_hashed=True) == ("0" * 64, len(DATA))
    with pytest.raises(DigestMismatch):
        blobs.verify("0" * 64)


def test_a_flipped_bit_is_found(blobs: Blobs, file: Path) -> None:
    blobs.add(file, move=False)
    assert blobs.verify(DIGEST) == len(DATA)
    path = blobs.path(DIGEST)
    path.chmod(0o644)
    path.write_bytes(b"W" + DATA[1:])
    with pytest.raises(DigestMismatch, match="has changed on disk"):
        blobs.verify(DIGEST)


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "A" * 64, "0" * 63])
def test_a_digest_is_no_path(blobs: Blobs, digest: str) -> None:
    with pytest.raises(Missing):
        blobs.path(digest)


def test_a_full_disk_leaves_nothing(blobs: Blobs, file: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(Unavailable, match="no space left"):
            blobs.add(file, move=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert list(blobs.digests()) == []
    assert not list((blobs.root / "incoming").iterdir())


def test_a_kill_leaves_nothing_that_passes_for_a_blob(blobs: Blobs, tmp_path: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as out:
        out.truncate(3 * 2**30)
    code = (
        "import sys; from pathlib import Path; from freehold.store.blobs import Blobs;"
        "Blobs(Path(sys.argv[1])).add(Path(sys.argv[2]), move=False)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(blobs.root), str(big)])
    while not any(p.stat().st_size for p in (blobs.root / "incoming").iterdir()):
        time.sleep(0.01)
    child.kill()
    child.wait()
    assert list(blobs.digests()) == []
    assert list((blobs.root / "incoming").iterdir())
    blobs.clear_incoming()
    assert not list((blobs.root / "incoming").iterdir())
