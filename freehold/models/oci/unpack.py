"""Take files out of a tar layer: bounded, plain files only, nothing outside the folder."""

import gzip
import tarfile
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, BinaryIO, Self, cast

from freehold.errors import Invalid
from freehold.models.oci.manifest import check_file_name
from freehold.models.oci.media import GZIP, TAR, ZSTD
from freehold.models.oci.zstd import open_zstd, zstd

MOST_FILES = 10_000
RATIO = 64
"""Bytes that may come out for one that went in; weights hardly shrink at all."""
SLACK = 1 << 20
LONGEST_HEADER = 64 * 1024
"""Bytes of a header before a member, which is read whole: names, times, attributes."""
PIECE = 4 * 1024 * 1024


def unpack(
    archive: Path, packed: str, folder: Path, progress: Callable[[int], None]
) -> dict[str, Path]:
    """Return the files of a tar layer by their names; they lie under ``folder``.

    ``Invalid`` for links, devices, odd names, one name twice, more bytes than the archive can hold
    by any honest compression, and for an archive that is damaged.
    """
    check_packing(packed)
    damage = _damage(packed)
    limit = archive.stat().st_size * (1 if packed == TAR else RATIO) + SLACK
    found: dict[str, Path] = {}
    done = 0
    try:
        with (
            _opened(archive, packed) as stream,
            tarfile.open(
                fileobj=cast("BinaryIO", _Bounded(stream, limit)), mode="r|", tarinfo=_Member
            ) as tar,
        ):
            for member in tar:
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise Invalid("invalid.archive", f"{member.name!r:.80} is no plain file")
                name = check_file_name(member.name)
                if name in found or len(found) >= MOST_FILES:
                    raise Invalid("invalid.archive", f"{name!r:.80}: there twice, or too many")
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                reader = tar.extractfile(member)
                assert reader is not None
                with target.open("wb") as file:
                    while piece := reader.read(PIECE):
                        done += file.write(piece)
                        if done > limit:
                            raise Invalid("invalid.archive", "a layer unpacks to far too much")
                        progress(done)
                found[name] = target
    except damage as error:
        raise Invalid("invalid.archive", f"a layer is no whole tar archive: {error}") from error
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise Invalid("invalid.archive", "a layer has a file where it has a folder") from error
    return found


def check_packing(packed: str) -> None:
    """Raise what stands against unpacking such layers, before they are fetched."""
    if packed == ZSTD:
        zstd()


def _opened(archive: Path, packed: str) -> AbstractContextManager[IO[bytes]]:
    if packed == ZSTD:
        return open_zstd(archive)
    if packed == GZIP:
        return cast("AbstractContextManager[IO[bytes]]", gzip.open(archive, "rb"))
    return archive.open("rb")


def _damage(packed: str) -> tuple[type[Exception], ...]:
    """Return what reading a damaged layer raises."""
    known = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile)
    return (*known, zstd().ZstdError) if packed == ZSTD else known


class _Member(tarfile.TarInfo):
    """A member whose header says nothing that takes memory or time without end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Read a header."""
        found = super().frombuf(buf, encoding, errors)
        if found.size < 0 or (found.type in _HEADERS and found.size > LONGEST_HEADER):
            raise Invalid("invalid.archive", f"a layer has a header of {found.size} bytes: refused")
        return found


_HEADERS = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip


class _Bounded:
    """Reads at most so many bytes, and says so instead of ending early."""

    def __init__(self, stream: IO[bytes], limit: int) -> None:
        self._stream = stream
        self._left = limit

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise Invalid("invalid.archive", "a layer unpacks to far more than it is: refused")
        return data
