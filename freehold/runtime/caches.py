"""Caches: which replica has read which beginnings of prompts, as far as all gateways remember.

An estimate: engines drop what they have not used for long, and so do marks.
"""

import zlib
from collections.abc import Iterable

from freehold.store.marks import Marks
from freehold.store.snapshot import Target


class Cache:
    """What one replica has likely read. Links of a chain go in and are asked for."""

    def __init__(self, marks: Marks, target: Target) -> None:
        self._marks = marks
        # An engine that was started again listens elsewhere, and has forgotten everything.
        self._name = zlib.crc32(f"{target.replica} {target.url}".encode())

    def has_read(self, link: int) -> bool:
        """Say whether it has read a prompt up to this link."""
        return hash((self._name, link)) in self._marks

    def is_reading(self, link: int) -> bool:
        """Say whether it was given a prompt that begins up to this link."""
        return hash((self._name, link, 1)) in self._marks

    def begin(self, links: Iterable[int]) -> None:
        """Note that the replica reads this prompt now."""
        for link in links:
            self._marks.add(hash((self._name, link, 1)))

    def end(self, links: Iterable[int]) -> None:
        """Note that the replica has read this prompt."""
        for link in links:
            self._marks.add(hash((self._name, link)))

    def drop(self, links: Iterable[int]) -> None:
        """Note that the replica does not have this prompt."""
        for link in links:
            self._marks.discard(hash((self._name, link)))
            self._marks.discard(hash((self._name, link, 1)))
