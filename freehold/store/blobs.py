"""Bytes by their SHA-256, written once, never changed.

Layout: ``blobs/sha256/ab/abcd...`` (mode 0444) and ``blobs/incoming/`` for what is not yet whole.
A blob appears by one rename after its bytes are on disk, so a kill or a full disk leaves nothing
that could be taken for one.
"""

import errno
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from freehold.errors import Broken, DigestMismatch, Missing, Unavailable

CHUNK = 4 * 1024 * 1024


class Blobs:
    """A content-addressed folder. All methods are synchronous; run long ones in a thread."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._incoming = root / "incoming"
        self._blobs = root / "sha256"
        for directory in (self._incoming, self._blobs):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def path(self, digest: str) -> Path:
        """Return where the blob lies; ``Missing`` when it is not there."""
        path = self._place(digest)
        if not path.is_file():
            raise Missing(
                "missing.blob", f"the bytes of sha256:{digest} are not in {self.root}: import again"
            )
        return path

    def add(
        self,
        source: Path,
        *,
        move: bool,
        expected: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[str, int]:
        """Take a file in and return (digest, bytes); the digest is that of the bytes stored.

        ``move`` lets a scratch file on the same filesystem be renamed instead of copied.
        """
        with _explained(self.root):
            if move and source.stat().st_dev == self.root.stat().st_dev:
                digest, size = measure(source, progress)
                self._expect(expected, digest)
                _sync(source)
                self._admit(source, digest)
                return digest, size
            partial = self._incoming / secrets.token_hex(8)
            try:
                digest, size = _copy(source, partial, progress)
                self._expect(expected, digest)
                self._admit(partial, digest)
            finally:
                partial.unlink(missing_ok=True)
            if move:
                source.unlink(missing_ok=True)
            return digest, size

    def verify(self, digest: str, progress: Callable[[int, int], None] | None = None) -> int:
        """Re-read the blob and return its size; ``DigestMismatch`` when a single bit differs."""
        path = self.path(digest)
        try:
            found, size = measure(path, progress)
        except OSError as error:
            raise Broken("broken.blob", f"cannot read {path}: {error.strerror}") from error
        if found != digest:
            raise DigestMismatch(
                "broken.digest",
                f"{path} has changed on disk: it should be sha256:{digest} and is sha256:{found}; "
                "import it again",
            )
        return size

    def remove(self, digest: str) -> None:
        """Delete the blob if it is there. The caller knows that nothing refers to it."""
        self._place(digest).unlink(missing_ok=True)

    def digests(self) -> Iterator[str]:
        """Yield the digest of every blob."""
        for path in self._blobs.glob("??/*"):
            yield path.name

    def clear_incoming(self) -> None:
        """Delete what an interrupted import left. Called at start, under the home's lock."""
        for path in self._incoming.iterdir():
            path.unlink(missing_ok=True)

    def _place(self, digest: str) -> Path:
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise Missing("missing.blob", "a digest is 64 lower-case hexadecimal digits")
        return self._blobs / digest[:2] / digest

    def _admit(self, partial: Path, digest: str) -> None:
        # Also over what is there already: that may have been damaged since, these bytes are right.
        place = self._place(digest)
        place.parent.mkdir(exist_ok=True, mode=0o700)
        partial.chmod(0o444)
        partial.replace(place)
        _sync(place.parent)

    @staticmethod
    def _expect(expected: str | None, found: str) -> None:
        if expected is not None and found != expected:
            raise DigestMismatch(
                "broken.digest",
                f"expected sha256:{expected} but the bytes are sha256:{found}: nothing was kept; "
                "check the source and import again",
            )


def measure(path: Path, progress: Callable[[int, int], None] | None = None) -> tuple[str, int]:
    """Return the SHA-256 (hex) and size in bytes of a file."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(CHUNK))
    with path.open("rb", buffering=0) as file:
        total, done = os.fstat(file.fileno()).st_size, 0
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            done += count
            if progress:
                progress(done, total)
    return digest.hexdigest(), done


def _copy(
    source: Path, target: Path, progress: Callable[[int, int], None] | None
) -> tuple[str, int]:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(CHUNK))
    with source.open("rb", buffering=0) as reader, target.open("xb", buffering=0) as writer:
        total, done = os.fstat(reader.fileno()).st_size, 0
        while count := reader.readinto(buffer):
            piece = buffer[:count]
            digest.update(piece)
            while piece:
                piece = piece[writer.write(piece) or 0 :]
            done += count
            if progress:
                progress(done, total)
        os.fsync(writer.fileno())
    return digest.hexdigest(), done


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _explained(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            text = f"no space left in {root}: free some and import again; nothing was kept"
            raise Unavailable("unavailable.disk", text) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            text = f"cannot read or write there: {error.filename or root}: {error.strerror}"
            raise Unavailable("unavailable.home", text) from error
        raise
