"""Blobs nobody uses now, kept as chunks: what several of them share is there once.

Layout beside the whole blobs: ``recipes/DIGEST`` says what chunks a blob is made of,
``chunks/ab/abcd...`` holds a chunk. A blob with a recipe and without its whole file is packed. A
packed blob borrows chunks from whole blobs that have a recipe too; when such a one is removed, it
moves to ``lent/`` until its chunks are saved. Every step is one rename or one unlink after the
bytes it relies on are on disk, so a kill at any point leaves each blob whole, packed, or both.
"""

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from freehold.errors import Broken, DigestMismatch
from freehold.store.chunks import Chunk, Recipe
from freehold.store.files import is_digest, sync

Progress = Callable[[int, int], None]
Places = dict[str, list[tuple[Path, int]]]
"""Chunk to where its bytes are: files and offsets, the surest first."""


class Cold:
    """The packed side of a blob store at ``root``; ``whole`` tells where a whole blob would be.

    Who packs, settles or deletes holds the store's lock; reading needs none.
    """

    def __init__(self, root: Path, whole: Callable[[str], Path]) -> None:
        self._whole = whole
        self._recipes = root / "recipes"
        self._chunks = root / "chunks"
        self._lent = root / "lent"
        self._incoming = root / "incoming"
        for directory in (self._recipes, self._chunks, self._lent, self._incoming):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def recipe(self, digest: str) -> Recipe | None:
        """Return what a blob is made of, if that is known."""
        return _read(self._recipes / digest)

    def keep_recipe(self, digest: str, recipe: Recipe) -> None:
        """Remember what a blob is made of."""
        self._put(self._recipes / digest, msgspec.json.encode(recipe))

    def forget_recipe(self, digest: str) -> None:
        """Forget what a blob is made of; a packed one is gone with it."""
        (self._recipes / digest).unlink(missing_ok=True)

    def is_packed(self, digest: str) -> bool:
        """Say whether a blob is here as chunks only."""
        return (self._recipes / digest).is_file() and not self._whole(digest).exists()

    def packed(self) -> Iterator[str]:
        """Yield the digest of every packed blob."""
        for path in sorted(self._recipes.iterdir()):
            if is_digest(path.name) and not self._whole(path.name).exists():
                yield path.name

    def lend(self, digest: str) -> None:
        """Take a whole blob out of sight; its chunks stay until ``settle`` has saved them."""
        recipe = self._recipes / digest
        with suppress(FileNotFoundError):
            (self._lent / f"{digest}.recipe").unlink(missing_ok=True)
            os.link(recipe, self._lent / f"{digest}.recipe")
            self._whole(digest).replace(self._lent / digest)
            recipe.unlink()

    def lent(self) -> list[str]:
        """Return the removed blobs whose chunks others may still need."""
        return sorted(path.name for path in self._lent.iterdir() if is_digest(path.name))

    def store_missing(self, digest: str, recipe: Recipe) -> int:
        """Write the chunks of a whole blob that no other place has; return their bytes."""
        places, written, offset = self._places(without=self._whole(digest)), 0, 0
        with self._whole(digest).open("rb", buffering=0) as file:
            for chunk in recipe.chunks:
                if chunk.digest not in places:
                    data = _read_at(file, offset, chunk.bytes)
                    self._keep(chunk.digest, data)
                    places[chunk.digest] = [(self._place(chunk.digest), 0)]
                    written += chunk.bytes
                offset += chunk.bytes
        return written

    def check(
        self, digest: str, progress: Progress | None = None, *, without: Path | None = None
    ) -> int:
        """Read a blob out of its chunks and return its size; ``DigestMismatch`` if it differs."""
        return sum(map(len, self._read_out(digest, without, progress)))

    def assemble(self, digest: str, progress: Progress | None = None) -> Path:
        """Return a new file that holds the blob, on disk and checked; the caller moves it."""
        partial = self._incoming / secrets.token_hex(8)
        try:
            with partial.open("xb", buffering=0) as file:
                for data in self._read_out(digest, None, progress):
                    _write_all(file, data)
                os.fsync(file.fileno())
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        return partial

    def needed(self) -> set[str]:
        """Return the chunks that packed blobs are made of."""
        return {
            chunk.digest
            for digest in self.packed()
            for chunk in (self.recipe(digest) or Recipe(())).chunks
        }

    def settle(self) -> int:
        """Save the chunks that packed blobs borrow from removed ones; return the bytes freed."""
        freed = 0
        for digest in self.lent():
            path, recipe = self._lent / digest, self._lent / f"{digest}.recipe"
            needed, offset = self.needed(), 0
            places = self._places(without=path)
            with path.open("rb", buffering=0) as file:
                for chunk in (_read(recipe) or Recipe(())).chunks:
                    if chunk.digest in needed and chunk.digest not in places:
                        self._keep(chunk.digest, _read_at(file, offset, chunk.bytes))
                        freed -= chunk.bytes
                        needed.discard(chunk.digest)
                    offset += chunk.bytes
            freed += path.stat().st_size
            path.unlink()
            recipe.unlink(missing_ok=True)
        for path in self._lent.glob("*.recipe"):
            if not (self._lent / path.name.removesuffix(".recipe")).exists():
                path.unlink(missing_ok=True)
        return freed

    def unneeded(self) -> list[Path]:
        """Return the chunk files that no packed blob is made of."""
        needed = self.needed()
        return [path for path in self._chunks.glob("??/*") if path.name not in needed]

    def stored(self) -> int:
        """Return the bytes that chunks, recipes and lent blobs take."""
        total = 0
        for path in (*self._chunks.glob("??/*"), *self._recipes.iterdir(), *self._lent.iterdir()):
            with suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    def _places(self, *, without: Path | None = None) -> Places:
        """Find every chunk there is; files of their own first, then within whole blobs."""
        found: Places = {path.name: [(path, 0)] for path in self._chunks.glob("??/*")}
        sources = [(path, self._whole(path.name)) for path in self._recipes.iterdir()]
        sources += [(self._lent / f"{name}.recipe", self._lent / name) for name in self.lent()]
        for recipe_file, whole in sources:
            if whole == without or not whole.exists() or (recipe := _read(recipe_file)) is None:
                continue
            offset = 0
            for chunk in recipe.chunks:
                found.setdefault(chunk.digest, []).append((whole, offset))
                offset += chunk.bytes
        return found

    def _read_out(
        self, digest: str, without: Path | None, progress: Progress | None
    ) -> Iterator[bytes]:
        """Yield a packed blob's bytes; ends with an error unless they are what they should be.

        Takes no lock: whoever takes bytes away has put them elsewhere first, so a second look
        finds what moved meanwhile.
        """
        recipe = self.recipe(digest)
        if recipe is None:
            raise Broken(
                "broken.blob", f"what sha256:{digest} is made of cannot be read: import it again"
            )
        places, done, total = self._places(without=without), 0, recipe.bytes
        found = hashlib.sha256()
        # The whole is hashed beside: hashing lets go of the interpreter, so two cores share it.
        with ThreadPoolExecutor(1, "whole") as beside:
            hashed = beside.submit(found.update, b"")
            for chunk in recipe.chunks:
                data = _first_sound(chunk, places)
                if data is None:
                    places = self._places(without=without)
                    data = _first_sound(chunk, places)
                if data is None:
                    raise _damaged(digest, f"chunk {chunk.digest[:16]} is damaged or missing")
                hashed.result()
                hashed = beside.submit(found.update, data)
                yield data
                done += chunk.bytes
                if progress:
                    progress(done, total)
            hashed.result()
        if found.hexdigest() != digest:
            raise _damaged(digest, "its chunks do not make it")

    def _place(self, chunk: str) -> Path:
        return self._chunks / chunk[:2] / chunk

    def _keep(self, chunk: str, data: bytes) -> None:
        if hashlib.sha256(data).hexdigest() != chunk:
            raise DigestMismatch(
                "broken.digest", f"the bytes of chunk {chunk[:16]} have changed on disk"
            )
        place = self._place(chunk)
        place.parent.mkdir(exist_ok=True, mode=0o700)
        self._put(place, data)

    def _put(self, place: Path, data: bytes) -> None:
        partial = self._incoming / secrets.token_hex(8)
        try:
            with partial.open("xb", buffering=0) as file:
                _write_all(file, data)
                os.fsync(file.fileno())
            partial.chmod(0o444)
            partial.replace(place)
        finally:
            partial.unlink(missing_ok=True)
        sync(place.parent)


def _first_sound(chunk: Chunk, places: Places) -> bytes | None:
    """Return a chunk's bytes from the first place that has them undamaged."""
    for path, offset in places.get(chunk.digest, []):
        with suppress(OSError), path.open("rb", buffering=0) as file:
            data = _read_at(file, offset, chunk.bytes)
            if hashlib.sha256(data).hexdigest() == chunk.digest:
                return data
    return None


def _read(path: Path) -> Recipe | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Recipe)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := os.pread(file.fileno(), size - len(data), offset)):
        data = data + more if data else more
        offset += len(more)
    return data


def _write_all(file: BinaryIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) or 0 :]


def _damaged(digest: str, why: str) -> DigestMismatch:
    return DigestMismatch(
        "broken.digest", f"sha256:{digest} has changed on disk: {why}; import it again"
    )
