"""Bytes by their SHA-256, written once, never changed.

Layout: ``blobs/sha256/ab/abcd...`` (mode 0444) and ``blobs/incoming/`` for what is not yet whole.
A blob appears by one rename after its bytes are on disk, so a kill or a full disk leaves nothing
that could be taken for one. Its modification time is when it was last asked for. What nobody asks
for may be packed (``cold``): it is made whole again when somebody does.
"""

import errno
import hashlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from freehold.errors import Broken, DigestMismatch, Missing, Unavailable
from freehold.store.chunks import Recipe, cuts, recipe_of
from freehold.store.cold import Cold
from freehold.store.files import is_digest, sync

CHUNK = 4 * 1024 * 1024


class Blobs:
    """A content-addressed folder. All methods are synchronous; run long ones in a thread."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._incoming = root / "incoming"
        self._blobs = root / "sha256"
        for directory in (self._incoming, self._blobs):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._cold = Cold(root, self._place)
        self._packing = threading.RLock()
        """Held by whoever packs or collects: minutes, perhaps. Nobody who reads waits for it."""
        self._turn = threading.Lock()
        """Held for the moment in which a whole file is handed out, put there or taken away."""

    def path(self, digest: str) -> Path:
        """Return where the blob lies, whole; ``Missing`` when it is not there.

        One that was packed is put together first, which takes about as long as copying it.
        """
        return self._handed_out(digest) or self._unpack(digest)

    def has(self, digest: str) -> bool:
        """Say whether the blob is here, whole or packed."""
        return self._place(digest).is_file() or self._cold.is_packed(digest)

    def size(self, digest: str) -> int:
        """Return the blob's bytes, whole or packed; ``Missing`` when it is not there."""
        with suppress(FileNotFoundError):
            return self._place(digest).stat().st_size
        recipe = self._cold.recipe(digest)
        if recipe is None:
            raise self._missing(digest)
        return recipe.bytes

    def add(
        self,
        source: Path,
        *,
        move: bool,
        expected: str | None = None,
        is_hashed: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[str, int]:
        """Take a file in and return (digest, bytes); the digest is that of the bytes stored.

        ``move`` lets a scratch file on the same filesystem be renamed instead of copied; one that
        ``is_hashed``, as it was written, has the ``expected`` digest and is then not read.
        """
        with _explained(self.root):
            if move and source.stat().st_dev == self.root.stat().st_dev:
                if is_hashed and expected is not None:
                    digest, size = expected, source.stat().st_size
                else:
                    digest, size = measure(source, progress)
                self._expect(expected, digest)
                sync(source)
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
        path = self._place(digest)
        while not path.is_file():
            if self._cold.is_packed(digest):
                return self._cold.check(digest, progress)
            if not path.is_file():  # else it was put together between the two looks
                raise self._missing(digest)
        try:
            found, size = measure(path, progress)
        except FileNotFoundError:  # it was packed meanwhile
            return self.verify(digest, progress)
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
        """Delete the blob if it is there. The caller knows that nothing refers to it.

        Takes no time: bytes that packed blobs borrow from it are seen to by ``collect``.
        """
        with self._turn:
            if not self._place(digest).exists():
                self._cold.forget_recipe(digest)
            elif self._cold.recipe(digest) is None:
                self._place(digest).unlink(missing_ok=True)
            else:
                self._cold.lend(digest)
        if self._packing.acquire(blocking=False):
            try:
                if next(self._cold.packed(), None) is None:
                    self._cold.settle()
            finally:
                self._packing.release()

    def digests(self) -> Iterator[str]:
        """Yield the digest of every blob, whole or packed."""
        for path in self._blobs.glob("??/*"):
            yield path.name
        yield from self._cold.packed()

    def is_packed(self, digest: str) -> bool:
        """Say whether the blob is here as chunks only."""
        return self._cold.is_packed(digest)

    def unused_for(self, digest: str) -> float:
        """Return the seconds since a whole blob came or was asked for; 0 for one that is not."""
        try:
            return max(0.0, time.time() - self._place(digest).stat().st_mtime)
        except FileNotFoundError:
            return 0.0

    def recipe(
        self,
        digest: str,
        starts: Callable[[Path], Iterable[int]],
        progress: Callable[[int, int], None] | None = None,
    ) -> Recipe | None:
        """Return what a blob is made of; reads it the first time. None when it is damaged.

        ``starts`` tells at which positions parts of the file begin.
        """
        known = self._cold.recipe(digest)
        if known is not None:
            return known
        path = self._place(digest)
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            found, whole = recipe_of(_Watched(file, size, progress), cuts(starts(path), size))
        if whole != digest:
            return None
        with self._turn:
            if not path.exists():  # removed meanwhile: a recipe alone would pass for a packed blob
                return None
            self._cold.keep_recipe(digest, found)
        return found

    def pack(
        self,
        digest: str,
        is_wanted: Callable[[], bool],
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Keep a blob as chunks; return the bytes that freed, 0 where it had to stay whole.

        ``is_wanted`` is asked at the last moment: what was handed out meanwhile stays.
        """
        place = self._place(digest)
        with self._packing, _explained(self.root):
            recipe = self._cold.recipe(digest)
            if recipe is None or not place.exists():
                return 0
            written = self._cold.store_missing(digest, recipe)
            # Nothing is given up before it was read back out of what stays.
            self._cold.check(digest, progress, without=place)
            with self._turn:
                if is_wanted() or not place.exists():
                    return 0
                place.unlink()
                return recipe.bytes - written

    def collect(self, *, plan: bool = False) -> int:
        """Delete chunks that no packed blob is made of; return the bytes freed, or to be freed."""
        with self._packing, _explained(self.root):
            freed = 0
            if not plan:
                freed += self._cold.settle()
            for path in self._cold.unneeded():
                freed += path.stat().st_size
                if not plan:
                    path.unlink(missing_ok=True)
            return freed

    def stored(self) -> int:
        """Return the bytes on disk that all blobs take together."""
        whole = 0
        for path in self._blobs.glob("??/*"):
            try:
                whole += path.stat().st_size
            except FileNotFoundError:
                continue
        return whole + self._cold.stored()

    def clear_incoming(self) -> None:
        """Delete what an interrupted import left. Called at start, under the home's lock."""
        for path in self._incoming.iterdir():
            path.unlink(missing_ok=True)

    def _handed_out(self, digest: str) -> Path | None:
        """Return a whole file and note that it is used now, in one moment."""
        place = self._place(digest)
        with self._turn:
            try:
                os.utime(place)
            except FileNotFoundError:
                return None
            except OSError:  # a read-only disk: nothing is packed there either
                return place if place.is_file() else None
        return place

    def _unpack(self, digest: str) -> Path:
        with _explained(self.root):
            if not self._cold.is_packed(digest):
                raise self._missing(digest)
            partial = self._cold.assemble(digest)
            try:
                self._admit(partial, digest)
            finally:
                partial.unlink(missing_ok=True)
            return self._place(digest)

    def _missing(self, digest: str) -> Missing:
        return Missing(
            "missing.blob", f"the bytes of sha256:{digest} are not in {self.root}: import again"
        )

    def _place(self, digest: str) -> Path:
        if not is_digest(digest):
            raise Missing("missing.blob", "a digest is 64 lower-case hexadecimal digits")
        return self._blobs / digest[:2] / digest

    def _admit(self, partial: Path, digest: str) -> None:
        # Also over what is there already: that may have been damaged since, these bytes are right.
        place = self._place(digest)
        place.parent.mkdir(exist_ok=True, mode=0o700)
        partial.chmod(0o444)
        with self._turn:
            os.utime(partial)
            partial.replace(place)
        sync(place.parent)

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


class _Watched:
    """A file that tells how far it was read."""

    def __init__(
        self, file: BinaryIO, size: int, progress: Callable[[int, int], None] | None
    ) -> None:
        self._file, self._size, self._progress = file, size, progress
        self._done = 0

    def read(self, count: int) -> bytes:
        data = self._file.read(count)
        self._done += len(data)
        if self._progress:
            self._progress(self._done, self._size)
        return data


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
