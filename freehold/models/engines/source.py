"""Where a build's source comes from: a pinned source distribution, read as an archive only.

Building runs what is in it, so its digest is pinned here or given by who asks; nothing else is
taken. Unpacking takes regular files within the archive's own folders, and so many of them.
"""

import shutil
import tarfile
from pathlib import Path, PurePosixPath
from typing import Protocol, runtime_checkable

import msgspec

from freehold.errors import DigestMismatch, Invalid, Missing
from freehold.models.source import Progress
from freehold.store.blobs import measure

MOST_FILES = 30_000
MOST_BYTES = 2 << 30
SIGNS = ("CMakeLists.txt", "tools/server/CMakeLists.txt", "ggml/CMakeLists.txt")
"""Files by which the root of llama.cpp is known."""


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """A source distribution of a package index that vendors all of llama.cpp."""

    project: str
    version: str
    sha256: str


PINNED = Pin(
    project="llama-cpp-python",
    version="0.3.36",
    sha256="832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
)


@runtime_checkable
class Archives(Protocol):
    """A source that also has source distributions."""

    def archive(
        self, project: str, version: str, sha256: str, scratch: Path, progress: Progress
    ) -> Path:
        """Download one, checked, and return where it lies."""
        ...


def given(path: Path, sha256: str | None) -> tuple[Path, str]:
    """Return a file somebody gives as the source, and its digest; it must be a known one."""
    if not path.is_file():
        raise Missing("missing.source", f"there is no file {path}", param="source")
    found, _ = measure(path)
    if found != (sha256 or PINNED.sha256):
        hint = "it is not the digest you gave" if sha256 else (
            f"only {PINNED.project} {PINNED.version} is known: building runs what is in it, so say "
            f"that you trust it with --sha256 {found}"
        )  # fmt: skip
        raise DigestMismatch(
            "invalid.digest", f"{path.name} is sha256:{found}: {hint}", param="source"
        )
    return path, found


def unpack(archive: Path, target: Path, progress: Progress) -> Path:
    """Unpack into ``target``, whole or not at all, and return the root of llama.cpp in it."""
    if not target.exists():
        partial = target.with_name(f"{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            _take_out(archive, partial, progress)
        except (tarfile.TarError, EOFError, ValueError, UnicodeError) as error:
            raise Invalid("invalid.source", f"{archive.name} is damaged: {error}") from error
        partial.replace(target)
    roots = [
        path.parent
        for path in sorted(target.rglob(SIGNS[0]), key=lambda path: len(path.parts))
        if all((path.parent / sign).is_file() for sign in SIGNS)
    ]
    if not roots:
        raise Invalid("invalid.source", f"{archive.name} does not hold llama.cpp")
    return roots[0]


def _take_out(archive: Path, target: Path, progress: Progress) -> None:
    count = size = 0
    total = archive.stat().st_size
    with archive.open("rb") as file, tarfile.open(fileobj=file, mode="r|gz") as members:
        for member in members:
            count, size = count + 1, size + member.size
            if count > MOST_FILES or size > MOST_BYTES:
                raise Invalid(
                    "invalid.source", f"{archive.name} holds over {MOST_FILES} files or "
                    f"{MOST_BYTES >> 30} GiB"
                )  # fmt: skip
            name = PurePosixPath(member.name)
            if name.is_absolute() or ".." in name.parts or "\\" in member.name:
                raise Invalid(
                    "invalid.source", f"{archive.name} holds the path {member.name!r:.100}"
                )
            if member.isdir():
                continue
            if not member.isreg():
                raise Invalid(
                    "invalid.source", f"{archive.name} holds {member.name!r:.100}, no regular file"
                )
            place = target / name
            place.parent.mkdir(parents=True, exist_ok=True)
            content = members.extractfile(member)
            if content is not None:
                with content, place.open("xb") as out:
                    shutil.copyfileobj(content, out)
                place.chmod(0o700 if member.mode & 0o100 else 0o600)
            progress("unpack", file.tell(), total)
