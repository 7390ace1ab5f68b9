"""Bodies on their way to an upload's file: what is kept, what is known of it, what is refused."""

import fcntl
import hashlib
import os
import resource
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from freehold.errors import Conflict, OutOfRange, TooLarge, Unavailable
from freehold.gateway.spool import PART, Digests, append

MOST = 1 << 40
BODY = os.urandom(2 * PART + 12345)


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    path = tmp_path / "upload"
    path.touch()
    return path


async def body(data: bytes, size: int, breaks: bool = False) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]
    if breaks:
        raise ConnectionError("it broke off")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", [1000, 32 * 1024, 65537, PART, PART + 1, 3 * PART])
async def test_what_comes_is_written_and_hashed_whatever_its_pieces(
    upload: Path, size: int
) -> None:
    digests = Digests()
    assert await append(body(BODY, size), upload, 0, MOST, digests) == len(BODY)
    assert upload.read_bytes() == BODY
    assert digests.finish(upload, len(BODY)) == sha256(BODY)
    assert digests.finish(upload, len(BODY)) == ""


async def test_a_digest_goes_on_over_several_requests(upload: Path) -> None:
    digests = Digests()
    first = await append(body(BODY[:70_000], 9000), upload, 0, MOST, digests)
    with pytest.raises(ConnectionError):
        await append(body(BODY[first:100_000], 9000, breaks=True), upload, first, MOST, digests)
    size = await append(body(BODY[100_000:], 65536), upload, 100_000, MOST, digests)
    assert (size, upload.read_bytes()) == (len(BODY), BODY)
    assert digests.finish(upload, size) == sha256(BODY)


async def test_what_another_gateway_wrote_is_not_known(upload: Path) -> None:
    digests = Digests()
    first = await append(body(BODY[:50_000], 9000), upload, 0, MOST, Digests())
    size = await append(body(BODY[50_000:90_000], 9000), upload, first, MOST, digests)
    assert digests.finish(upload, size) == ""
    # Nor where the other one went on between two of ours.
    await append(body(b"a" * 10, 10), upload, 90_000, MOST, digests)
    upload.write_bytes(BODY[:10])
    size = await append(body(b"", 1), upload, 10, MOST, digests)
    assert digests.finish(upload, size) == ""
    # Or ours is behind what there is.
    await append(body(b"", 1), upload, 10, MOST, Digests())
    assert digests.finish(upload, 11) == ""


async def test_so_many_digests_are_remembered(tmp_path: Path) -> None:
    digests = Digests(kept=2)
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.touch()
        await append(body(b"x", 1), path, 0, MOST, digests)
    assert [bool(digests.finish(path, 1)) for path in paths] == [False, True, True]


async def test_a_blob_over_the_limit_is_refused_before_it_is_written(upload: Path) -> None:
    with pytest.raises(TooLarge, match=r"at most 3000000 bytes: registry\.blob_limit"):
        await append(body(BODY, 65536), upload, 0, 3_000_000, Digests())
    assert upload.read_bytes() == BODY[:PART]


async def test_one_writer_at_a_time_and_none_after_it_is_a_blob(upload: Path) -> None:
    with upload.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Conflict, match="another request writes"):
            await append(body(b"x", 1), upload, 0, MOST, Digests())
    with pytest.raises(OutOfRange, match="another request has written"):
        await append(body(b"x", 1), upload, 5, MOST, Digests())
    blob = upload.rename(upload.with_name("blob"))
    with pytest.raises(Conflict, match="the upload is over"):
        await append(body(b"x", 1), upload, 0, MOST, Digests())
    assert blob.read_bytes() == b""


@pytest.fixture
def _full_disk() -> Iterator[None]:
    """A limit on the size of files: writing beyond it fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (PART + 4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.usefixtures("_full_disk")
async def test_a_full_disk_keeps_whole_parts_and_goes_on_after_them(upload: Path) -> None:
    digests = Digests()
    with pytest.raises(Unavailable, match="free some and go on"):
        await append(body(BODY, 65536), upload, 0, MOST, digests)
    assert upload.read_bytes() == BODY[:PART]
    resource.setrlimit(resource.RLIMIT_FSIZE, (-1, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    size = await append(body(BODY[PART:], 65536), upload, PART, MOST, digests)
    assert (upload.read_bytes(), digests.finish(upload, size)) == (BODY, sha256(BODY))
