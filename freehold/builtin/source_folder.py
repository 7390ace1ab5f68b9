"""``source.folder``: a file on this machine, or the folder that a model lies in."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from freehold.errors import Invalid, Missing
from freehold.models.card import licence_of, read_card
from freehold.models.licence import together
from freehold.models.source import CARD, SIGNATURE, Fetched, Origin, Progress, read_beside
from freehold.settings import Sources

MOST_FILES = 1000
DEEPEST = 4
LONGEST_CARD = 1024 * 1024
PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg", ".pdf", ".mp4")
"""What lies beside models to be looked at: left where it is."""
LICENCES = ("license", "licence", "copying")


class Folder:
    """Names files where they lie; the registry copies them."""

    def __init__(self, settings: Sources) -> None:
        self._settings = settings

    def claims(self, text: str) -> Origin | None:
        """Claim ``file:PATH``, anything that looks like a path, and any path that exists."""
        path = text.removeprefix("file:")
        named = text != path or path.startswith(("/", "./", "../", "~"))
        if named or Path(path).exists():
            return Origin(source="folder", location=str(Path(path).expanduser().absolute()))
        return None

    def fetch(self, origin: Origin, scratch: Path, progress: Progress) -> Fetched:  # noqa: ARG002
        """Return the file that is meant, or all files of a folder of safetensors or ONNX."""
        path = Path(origin.location)
        if not path.exists():
            raise Missing("missing.source", f"there is no file or folder {path}", param="source")
        if path.is_dir() and not _ggufs(path):
            return Fetched(name=path.name, files=_all(path), resolved=str(path), moved=False)
        file = _only_model(path) if path.is_dir() else path
        if not stat.S_ISREG(file.stat().st_mode):
            raise Invalid("invalid.source", f"{file} is not a regular file", param="source")
        name = path.name if path.is_dir() else file.name.removesuffix(".gguf")
        kept = file.name if file.suffix in (".safetensors", ".onnx") else "model.gguf"
        card = read_beside(path, CARD) if path.is_dir() else None
        return Fetched(
            name=name,
            files={kept: file},
            resolved=str(file),
            moved=False,
            licence=_licence(path) if path.is_dir() else None,
            card=card.decode("utf-8", "replace") if card else None,
            signature=read_beside(file.parent, f"{file.name}.sig", SIGNATURE),
            beside=dict(_beside(path, file)) if path.is_dir() else {},
        )


def _ggufs(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.gguf"))


def _only_model(folder: Path) -> Path:
    found = _ggufs(folder)
    if len(found) == 1:
        return found[0]
    names = ", ".join(path.name for path in found[:20])
    if all("-of-" in path.name for path in found):
        text = f"{folder} holds a model in parts ({names}): merge them with llama-gguf-split first"
        raise Invalid("invalid.source", text, param="source")
    raise Invalid("invalid.source", f"{folder} holds several: name one of {names}", param="source")


def _all(folder: Path) -> dict[str, Path]:
    """Return every file of a folder by its name in it; what is hidden or a picture stays there."""
    found = dict(_walk(folder, folder, DEEPEST))
    if len(found) > MOST_FILES:
        raise Invalid(
            "invalid.source", f"{folder} holds over {MOST_FILES} files: name the model's own folder"
        )
    if not any(name.endswith((".safetensors", ".onnx")) for name in found):
        text = f"{folder} holds no .gguf file, no .safetensors and no .onnx"
        raise Invalid("invalid.source", text, param="source")
    return found


def _beside(folder: Path, model: Path) -> Iterator[tuple[str, Path]]:
    """Yield what a folder holds besides a model, its card, its licence and its signature."""
    count = 0
    for place, folders, names in os.walk(folder):
        depth = len(Path(place).relative_to(folder).parts)
        folders[:] = sorted(
            name for name in folders if depth + 1 < DEEPEST and not name.startswith(".")
        )
        for name in sorted(names):
            path = Path(place) / name
            if path == model or _is_paper(name, model) or name.startswith("."):
                continue
            if not name.isprintable() or not path.is_file():
                continue
            count += 1
            if count > MOST_FILES:
                return
            yield path.relative_to(folder).as_posix(), path


def _is_paper(name: str, model: Path) -> bool:
    lower = name.lower()
    return (
        lower in (CARD.lower(), SIGNATURE, f"{model.name.lower()}.sig")
        or lower.partition(".")[0] in LICENCES
        or lower.endswith(PICTURES)
    )


def _walk(root: Path, folder: Path, depth: int) -> Iterator[tuple[str, Path]]:
    for entry in sorted(os.scandir(folder), key=lambda each: each.name):
        path = Path(entry.path)
        if entry.name.startswith((".", "__pycache__")) or entry.name.lower().endswith(PICTURES):
            continue
        if not entry.name.isprintable() or len(entry.name) > 200 or "\\" in entry.name:
            raise Invalid(
                "invalid.source", f"{entry.name!r:.80} in {folder} is no name for a model's file",
                param="source",
            )  # fmt: skip
        if entry.is_dir(follow_symlinks=False):
            if depth > 1:
                yield from _walk(root, path, depth - 1)
            continue
        _check_link(root, path)
        if not stat.S_ISREG(path.stat().st_mode):
            raise Invalid("invalid.source", f"{path} is not a regular file", param="source")
        yield path.relative_to(root).as_posix(), path


def _check_link(root: Path, path: Path) -> None:
    """Follow links within the folder, and into the blobs of a Hub cache that it is part of."""
    if not path.is_symlink():
        return
    target, home = path.resolve(), root.resolve()
    inside = [home, home.parents[1] / "blobs"] if home.parent.name == "snapshots" else [home]
    if not any(target.is_relative_to(place) for place in inside) or not target.is_file():
        raise Invalid(
            "invalid.source", f"{path} is a link to outside of the folder: copy the file there",
            param="source",
        )  # fmt: skip


def _licence(folder: Path) -> str | None:
    """Return the licences that lie beside a model, as its card and its texts say."""
    told: list[object] = []
    for path in sorted(folder.iterdir()):
        name = path.name.lower()
        if name != "readme.md" and name.partition(".")[0] not in LICENCES:
            continue
        if path.is_symlink() or not path.is_file():
            continue
        with path.open("rb") as file:
            text = file.read(LONGEST_CARD).decode("utf-8", "replace")
        card = read_card(text) if name == "readme.md" else {"license": licence_of(text)}
        told += [card.get("license_name"), card.get("license")]
    found = together(*told)
    return None if found == "other" else found
