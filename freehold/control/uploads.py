"""What is pushed to our own registry before it is anything: uploads, and blobs by digest.

Uploads are files that gateways append to; they are on disk so that any gateway, and the next life
of this process, can go on with them. A blob has its name only once its bytes are whole.
"""

import fcntl
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from freehold.errors import Conflict, DigestMismatch, Invalid, Missing
from freehold.store.blobs import measure
from freehold.store.files import sync

_ID = re.compile(r"[0-9a-f]{32}")
_HEX = re.compile(r"[0-9a-f]{64}")


class Uploads:
    """The folder ``HOME/registry``. Blocks: long work belongs into a thread."""

    def __init__(self, root: Path) -> None:
        self._uploads = root / "uploads"
        self._blobs = root / "blobs"
        for folder in (self._uploads, self._blobs):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def begin(self, repository: str) -> str:
        """Return the id of a new upload to a repository."""
        made = secrets.token_hex(16)
        folder = self._uploads / repository
        folder.mkdir(exist_ok=True, mode=0o700)
        (folder / made).touch(mode=0o600)
        return made

    def path(self, repository: str, upload: str) -> Path:
        """Return where an upload lies; ``Missing`` when it is over, or another repository's."""
        found = self._uploads / repository / upload
        if not _ID.fullmatch(upload) or not found.is_file():
            raise Missing("missing.upload", f"no upload {upload!r:.40}: it is over, begin again")
        return found

    @contextmanager
    def whole(self, path: Path, digest: str, known: str = "") -> Iterator[int]:
        """Yield the bytes of an upload that has this digest (hex); nobody writes to it meanwhile.

        ``known`` is ``BYTES:SHA256`` where a gateway hashed it as it came; it is read otherwise.
        Other bytes than the digest says are deleted: ``DigestMismatch``.
        """
        try:
            file = path.open("rb", buffering=0)
        except FileNotFoundError as error:
            raise Missing("missing.upload", "another request has finished this upload") from error
        with file:
            _lock(file, path)
            size, _, found = known.partition(":")
            if not found or size != str(os.fstat(file.fileno()).st_size):
                found, measured = measure(path)
                size = str(measured)
            if found != digest:
                path.unlink(missing_ok=True)
                raise DigestMismatch(
                    "invalid.digest",
                    f"the bytes are sha256:{found}, not sha256:{digest}: nothing was kept",
                )
            os.fsync(file.fileno())
            yield int(size)

    def admit(self, path: Path, digest: str) -> None:
        """Make a blob of an upload that is whole."""
        path.chmod(0o444)
        path.replace(self._place(digest))
        sync(self._blobs)

    def blob(self, digest: str) -> Path | None:
        """Return where a blob lies, None where it is not here."""
        path = self._place(digest)
        return path if path.is_file() else None

    def remove(self, digest: str) -> None:
        """Delete a blob."""
        self._place(digest).unlink(missing_ok=True)

    def stored(self) -> int:
        """Return the bytes on disk of all uploads and blobs."""
        total = 0
        for path in (*self._uploads.glob("*/*"), *self._blobs.iterdir()):
            with suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    def digests(self) -> list[str]:
        """Return the digests (hex) of all blobs."""
        return [path.name for path in self._blobs.iterdir() if _HEX.fullmatch(path.name)]

    def forget(self, seconds: float) -> int:
        """Delete uploads that nobody has gone on with for so long; return how many."""
        before, count = time.time() - seconds, 0
        for path in self._uploads.glob("*/*"):
            try:
                if path.stat().st_mtime < before:
                    path.unlink()
                    count += 1
            except FileNotFoundError:
                continue
        return count

    def _place(self, digest: str) -> Path:
        if not _HEX.fullmatch(digest):
            raise Invalid("invalid.digest", "a digest is 64 lower-case hexadecimal digits")
        return self._blobs / digest


def _lock(file: IO[bytes], path: Path) -> None:
    """Make sure that no gateway writes to an upload, and that it is still one."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return
    except FileNotFoundError:
        pass
    except OSError as error:
        raise Conflict("conflict.upload", "another request writes to this upload") from error
    raise Missing("missing.upload", "another request has finished this upload")
