"""Responses that were stored so that a conversation can go on: one file each, no SQL.

A file lies in a folder of its principal's, so nobody else can find it. Any number of processes may
share a shelf: files come whole or not at all, and going over the bounds is put right by whoever
notices first.
"""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from freehold.errors import Broken, Invalid, Missing, Unavailable
from freehold.settings import Responses

LONGEST_CHAIN = 1000
SWEEP_SECONDS = 300.0
SWEEP_SHARE = 16
"""A process sweeps after it wrote this part of the bound, or after ``SWEEP_SECONDS``."""

_NAME = re.compile(r"resp_[0-9a-f]{8,64}")


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A response, what it answered, and the one it followed."""

    response: dict[str, Any]
    input: list[dict[str, Any]]
    previous: str | None = None


class Shelf:
    """Keeps stored responses. ``clock`` gives epoch seconds. Its methods block on the disk."""

    def __init__(self, folder: Path, settings: Responses, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._settings = settings
        self._clock = clock
        self._written = 0
        self._swept = clock()

    def keep(self, principal: str, stored: Stored) -> None:
        """Store a response; ``Unavailable`` when the disk does not take it."""
        path = self._path(principal, stored.response["id"])
        data = msgspec.json.encode(stored)
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            partial = path.with_suffix(".partial")
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            partial.replace(path)
        except OSError as error:
            raise Unavailable(
                "unavailable.responses",
                f"the response cannot be stored ({error.strerror}): ask with store false, or tell "
                "an administrator",
                retry_after=60,
            ) from error
        self._written += len(data)
        self._sweep_if_due()

    def load(self, principal: str, response_id: str, param: str | None = None) -> Stored:
        """Return a stored response; ``Missing`` when there is none, or it is somebody else's."""
        path = self._path(principal, response_id)
        try:
            used, data = path.stat().st_mtime, path.read_bytes()
        except FileNotFoundError as error:
            raise _missing(response_id, param) from error
        if used + self._settings.keep < self._clock():
            raise _missing(response_id, param)
        try:
            return msgspec.json.decode(data, type=Stored)
        except msgspec.DecodeError as error:
            raise Broken("broken.response", f"{path} is damaged: delete it") from error

    def chain(self, principal: str, response_id: str) -> list[Stored]:
        """Return a response and all before it, oldest first; each counts as used now."""
        found: list[Stored] = []
        name: str | None = response_id
        while name is not None:
            if len(found) == LONGEST_CHAIN:
                raise Invalid(
                    "invalid.conversation",
                    f"over {LONGEST_CHAIN} responses hang together: begin a new conversation",
                    param="previous_response_id",
                )
            found.append(self.load(principal, name, "previous_response_id"))
            now = self._clock()
            with suppress(OSError):
                os.utime(self._path(principal, name), (now, now))
            name = found[-1].previous
        return found[::-1]

    def remove(self, principal: str, response_id: str) -> None:
        """Delete a stored response."""
        try:
            self._path(principal, response_id).unlink()
        except FileNotFoundError as error:
            raise _missing(response_id, None) from error

    def sweep(self) -> None:
        """Delete what was not used for too long; then the longest unused, down to the bound."""
        self._written, self._swept = 0, self._clock()
        files = sorted(_files(self._folder))
        total = sum(size for _, size, _ in files)
        oldest = self._clock() - self._settings.keep
        for used, size, path in files:
            if used >= oldest and total <= self._settings.max_bytes:
                break
            with suppress(OSError):
                path.unlink()
            total -= size

    def _sweep_if_due(self) -> None:
        due = self._swept + SWEEP_SECONDS < self._clock()
        if due or self._written * SWEEP_SHARE > self._settings.max_bytes:
            self.sweep()

    def _path(self, principal: str, response_id: str) -> Path:
        if not _NAME.fullmatch(response_id):
            raise _missing(response_id, None)
        owner = sha256(principal.encode()).hexdigest()[:32]
        return self._folder / owner / f"{response_id}.json"


def _files(folder: Path) -> list[tuple[float, int, Path]]:
    """Return (last used, bytes, path) of every file."""
    found = []
    for path in folder.glob("*/resp_*"):
        with suppress(OSError):
            about = path.stat()
            found.append((about.st_mtime, about.st_size, path))
    return found


def _missing(response_id: str, param: str | None) -> Missing:
    return Missing(
        "missing.response",
        f"no response {response_id!r:.80} is stored: it was not, or is too old, or was deleted",
        param=param,
    )
