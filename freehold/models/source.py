"""Where weights come from: the protocol of a source, and what a fetch is given and gives back."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

BESIDE_BYTES = 256 * 1024
CARD, SIGNATURE = "README.md", "model.sig"

Progress = Callable[[str, int, int], None]
"""Called with (stage, bytes done, bytes in all or 0 when unknown); may raise to abort."""
ABORTS = ("unavailable.stopping", "unavailable.cancelled")
"""Codes of what a report of progress raises: nothing else is to be tried then."""


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """One place to get one model file from, as a catalog entry or a user names it.

    ``source`` is a plugin id without its kind (``pypi``, ``hub``, ``folder``); ``location`` is that
    source's own notation; ``members`` lists archive members in the order to concatenate.
    ``sha256`` is the digest of the finished file and ``bytes`` its size, when they are pinned;
    ``name`` is the model's, when the source knows it beforehand.
    """

    source: str
    location: str
    sha256: str | None = None
    bytes: int | None = None
    name: str | None = None
    members: tuple[str, ...] = ()


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """What a fetch produced: files on local disk, and what the source knows about them.

    ``files`` maps a file's name within the model (``model.gguf``) to where it lies now. ``moved``
    says that the registry may move the files instead of copying them (they are scratch files).
    ``resolved`` is the exact place, revision included, for the lineage. ``card`` is the model card
    and ``signature`` the signature (an OpenSSF bundle) that lie beside the files there;
    ``attached`` are signatures that a registry has about the artifact.
    ``digests`` are the SHA-256 (hex) that files must have. Those in ``hashed`` were hashed as they
    came to where they lie, where nobody else writes: they are not read again to be stored.
    ``beside`` are files that lie there too, and are no part of the model: looked at, not kept.
    """

    name: str
    files: Mapping[str, Path]
    resolved: str
    moved: bool
    licence: str | None = None
    notice: str | None = None
    card: str | None = None
    signature: bytes | None = None
    attached: tuple[bytes, ...] = ()
    digests: Mapping[str, str] = {}
    hashed: frozenset[str] = frozenset()
    beside: Mapping[str, Path] = {}


class Source(Protocol):
    """Gets model files; never runs, installs or unpickles what it gets."""

    def claims(self, text: str) -> Origin | None:
        """Return the origin that ``text`` (``pypi:NAME``, a path, ...) means here, or None."""
        ...

    def fetch(self, origin: Origin, scratch: Path, progress: Progress) -> Fetched:
        """Bring the files of ``origin`` to ``scratch`` or name where they lie; resumes by itself.

        Raises ``Missing`` when the source has no such thing, ``Unavailable`` when it cannot be
        reached, ``Invalid`` for a malformed archive and ``DigestMismatch`` for other bytes.
        """
        ...


def read_beside(folder: Path, *names: str) -> bytes | None:
    """Return the first of these small files that a folder holds."""
    for name in names:
        try:
            path = folder / name
            if path.is_file() and path.stat().st_size <= BESIDE_BYTES:
                return path.read_bytes()
        except OSError:
            continue
    return None
