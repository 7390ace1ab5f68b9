"""The texts that a compression learns from and is judged by. They never share a passage.

What we ship was written for this: several dozen languages, code, tables, dialogue, sums. A
tenant's own file is UTF-8 text, passages apart by empty lines; every third passage judges, the
others teach.
"""

from importlib.resources import files
from pathlib import Path

import msgspec

from freehold.errors import Invalid

MOST_BYTES = 4 * 1024 * 1024
LEAST_CHARACTERS = 2000
PASSAGE = 2000
"""Characters after which a passage without an empty line is cut."""


class Texts(msgspec.Struct, frozen=True, kw_only=True):
    """Passages to learn from, passages to be judged by, and where they come from."""

    learn: tuple[str, ...]
    judge: tuple[str, ...]
    source: str


def built_in() -> Texts:
    """Return the texts we ship."""
    folder = files("freehold.models.compress") / "texts"
    learn, judge = (
        tuple(_passages((folder / name).read_text(encoding="utf-8")))
        for name in ("calibration.txt", "evaluation.txt")
    )
    return Texts(learn=learn, judge=judge, source="built in, several dozen languages and code")


def read(path: Path) -> Texts:
    """Read a tenant's file; ``Invalid`` before any work when it is no usable text."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise _invalid(path, "it is not a file")
        if size > MOST_BYTES:
            raise _invalid(path, f"it has {size} bytes: {MOST_BYTES >> 20} MiB at most are read")
        data = path.read_bytes()
    except OSError as error:
        raise _invalid(path, f"it cannot be read: {error.strerror}") from error
    return parse(data, path.name)


def parse(data: bytes, name: str) -> Texts:
    """Return the texts of a file's bytes."""
    path = Path(name)
    if not data.strip():
        raise _invalid(path, "it is empty")
    if b"\0" in data:
        raise _invalid(path, "it holds zero bytes: it is no text")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise _invalid(path, f"it is not UTF-8 at byte {error.start}") from error
    strange = next((ch for ch in text if ord(ch) < 32 and ch not in "\t\n\r\f"), None)
    if strange is not None:
        raise _invalid(path, f"it holds the control character {ord(strange)}: it is no text")
    found = list(dict.fromkeys(_passages(text)))
    if sum(map(len, found)) < LEAST_CHARACTERS or len(found) < 3:
        raise _invalid(
            path,
            f"it has too little text: at least {LEAST_CHARACTERS} characters in 3 passages "
            "apart by empty lines are needed",
        )
    judge = tuple(found[2::3])
    learn = tuple(passage for index, passage in enumerate(found) if index % 3 != 2)
    return Texts(learn=learn, judge=judge, source=name)


def _passages(text: str) -> list[str]:
    found = []
    for part in text.replace("\r\n", "\n").split("\n\n"):
        part = part.strip("\n")
        while len(part) > PASSAGE:
            cut = part.rfind("\n", 1, PASSAGE)
            cut = cut if cut > 0 else part.rfind(" ", 1, PASSAGE)
            cut = cut if cut > 0 else PASSAGE
            found.append(part[:cut])
            part = part[cut:].strip("\n")
        if part.strip():
            found.append(part)
    return found


def _invalid(path: Path, why: str) -> Invalid:
    return Invalid(
        "invalid.calibration",
        f"cannot calibrate with {path.name!r:.80}: {why}; give UTF-8 text, passages apart by "
        "empty lines",
        param="calibration",
    )
