"""A tar layer takes no more memory or time than its bytes are worth."""

import gzip
import io
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from freehold.errors import Invalid
from freehold.models.oci.media import GZIP, TAR
from freehold.models.oci.unpack import unpack


def quiet(_done: int) -> None:
    return


def _header(kind: bytes, size: int) -> bytes:
    member = tarfile.TarInfo("x")
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_of_a_hundred_megabytes_is_not_read(tmp_path: Path, kind: bytes) -> None:
    size = 100 << 20
    archive = tmp_path / "layer"
    with gzip.open(archive, "wb", compresslevel=1) as file:
        file.write(_header(kind, size) + bytes(size))
    archive.write_bytes(archive.read_bytes() + bytes(2 << 20))  # so that the ratio is an honest one
    tracemalloc.start()
    try:
        with pytest.raises(Invalid, match="a header of"):
            unpack(archive, GZIP, tmp_path, quiet)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_a_size_below_nothing_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "layer"
    head = bytearray(_header(tarfile.REGTYPE, 0))
    head[124:136] = b"\xff" * 11 + b"\0"  # in base 256, with a sign
    head[148:156] = b"%06o\0 " % (sum(head[:148]) + 8 * 32 + sum(head[156:]))
    archive.write_bytes(bytes(head) + bytes(10240))
    with pytest.raises(Invalid, match="a header of -"):
        unpack(archive, TAR, tmp_path, quiet)


def test_long_names_are_read(tmp_path: Path) -> None:
    file = io.BytesIO()
    name = "folder/" + "n" * 150 + ".json"
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo(name)
        member.size = 2
        tar.addfile(member, io.BytesIO(b"{}"))
    (tmp_path / "layer").write_bytes(file.getvalue())
    found = unpack(tmp_path / "layer", TAR, tmp_path / "out", quiet)
    assert found[name].read_bytes() == b"{}"
