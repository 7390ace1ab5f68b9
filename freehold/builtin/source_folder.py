"""``source.folder``: a file on this machine, or the folder it lies in."""

import stat
from pathlib import Path

from freehold.errors import Invalid, Missing
from freehold.models.source import Fetched, Origin, Progress
from freehold.settings import Sources


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
        """Return the one GGUF file that is meant."""
        path = Path(origin.location)
        if not path.exists():
            raise Missing("missing.source", f"there is no file or folder {path}", param="source")
        file = _only_model(path) if path.is_dir() else path
        if not stat.S_ISREG(file.stat().st_mode):
            raise Invalid("invalid.source", f"{file} is not a regular file", param="source")
        name = path.name if path.is_dir() else file.name.removesuffix(".gguf")
        return Fetched(name=name, files={"model.gguf": file}, resolved=str(file), moved=False)


def _only_model(folder: Path) -> Path:
    found = sorted(folder.glob("*.gguf"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise Invalid("invalid.source", f"{folder} holds no .gguf file", param="source")
    names = ", ".join(path.name for path in found[:20])
    if all("-of-" in path.name for path in found):
        text = f"{folder} holds a model in parts ({names}): merge them with llama-gguf-split first"
        raise Invalid("invalid.source", text, param="source")
    raise Invalid("invalid.source", f"{folder} holds several: name one of {names}", param="source")
