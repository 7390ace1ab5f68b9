"""An artifact that was pushed to our own registry, as a source for the path of a model."""

import os
from collections.abc import Callable
from pathlib import Path

from freehold.errors import Invalid
from freehold.models.oci import media
from freehold.models.oci.choose import Chosen, only_model
from freehold.models.oci.unpack import unpack
from freehold.models.source import Fetched, Origin, Progress

SMALL = 256 * 1024


class Pushed:
    """The one artifact it was made for.

    ``place`` returns where a blob (SHA-256 in hex) lies, ``is_new`` says whether it was pushed and
    is no version yet: then it was hashed as it came.
    """

    def __init__(
        self,
        text: str,
        chosen: Chosen,
        licence: str | None,
        place: Callable[[str], Path],
        is_new: Callable[[str], bool],
    ) -> None:
        self._text = text
        self._chosen = chosen
        self._licence = licence
        self._place = place
        self._is_new = is_new

    def claims(self, text: str) -> Origin | None:
        """Claim the artifact's own name."""
        return Origin(source="pushed", location=text) if text == self._text else None

    def fetch(self, origin: Origin, scratch: Path, progress: Progress) -> Fetched:
        """Name the blobs of the model; the registry takes them, or unpacks them, from here."""
        files: dict[str, Path] = {}
        raw: dict[str, str] = {}
        for number, layer in enumerate(self._chosen.files):
            if layer.packed == media.RAW:
                assert layer.name is not None
                # Another name for the same bytes: taking them in moves the name, not the bytes.
                target = scratch / f"layer-{number}"
                target.unlink(missing_ok=True)
                self._link(layer.blob.sha256, target)
                files[layer.name], raw[layer.name] = target, layer.blob.sha256
                continue
            folder = scratch / f"unpacked-{number}"
            folder.mkdir(exist_ok=True, mode=0o700)
            found = unpack(
                self._place(layer.blob.sha256),
                layer.packed,
                folder,
                lambda n: progress("unpack", n, 0),
            )
            if files.keys() & found.keys():
                raise Invalid("invalid.artifact", "two layers hold a file of one name")
            files |= found
        models = only_model(list(files), None)
        single = len(models) == 1 and models[0].endswith(".gguf")
        names = {"model.gguf" if single else name: name for name in models}
        digests = {own: raw[name] for own, name in names.items() if name in raw}
        return Fetched(
            name=origin.location,
            files={own: files[name] for own, name in names.items()},
            digests=digests,
            hashed=frozenset(own for own, digest in digests.items() if self._is_new(digest)),
            resolved=self._text,
            moved=True,
            licence=self._licence,
            card=self._read(self._chosen.card.blob.sha256) if self._chosen.card else None,
            signature=self._small(self._chosen.signature.blob.sha256)
            if self._chosen.signature
            else None,
        )

    def _link(self, digest: str, target: Path) -> None:
        try:
            os.link(self._place(digest), target)
        except FileNotFoundError:  # another push made a version of it: now it lies there
            os.link(self._place(digest), target)

    def _read(self, digest: str) -> str | None:
        data = self._small(digest)
        return data.decode("utf-8", "replace") if data else None

    def _small(self, digest: str) -> bytes | None:
        path = self._place(digest)
        return path.read_bytes() if path.stat().st_size <= SMALL else None
