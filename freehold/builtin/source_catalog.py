"""``source.catalog``: a bare name of the catalog, from the first of its origins that delivers."""

from pathlib import Path

import msgspec

from freehold.builtin.source_folder import Folder
from freehold.builtin.source_hub import Hub
from freehold.builtin.source_oci import OCI
from freehold.builtin.source_pypi import PyPI
from freehold.errors import FreeholdError, Missing, Unavailable
from freehold.models.catalog import read_catalog
from freehold.models.source import ABORTS, Fetched, Origin, Progress, Source
from freehold.settings import Sources


class Catalog:
    """Knows models by name; every byte is held against the entry's digest."""

    def __init__(self, settings: Sources) -> None:
        self._entries = read_catalog(settings.catalog)
        self._sources: dict[str, Source] = {
            "folder": Folder(settings),
            "hub": Hub(settings),
            "oci": OCI(settings),
            "pypi": PyPI(settings),
        }

    def names(self) -> list[str]:
        """Return the names it knows."""
        return list(self._entries)

    def claims(self, text: str) -> Origin | None:
        """Claim a name of the catalog."""
        entry = self._entries.get(text)
        if entry is None:
            return None
        return Origin(
            source="catalog",
            location=entry.name,
            name=entry.name,
            sha256=entry.sha256,
            bytes=entry.bytes,
        )

    def fetch(self, origin: Origin, scratch: Path, progress: Progress) -> Fetched:
        """Try the entry's origins in order; say of each why it failed when none delivers."""
        entry = self._entries.get(origin.location)
        if entry is None:
            raise Missing("missing.source", f"the catalog has no {origin.location}")
        reasons: list[str] = []
        for offer in entry.origins:
            place = Origin(
                source=offer.source,
                location=offer.location,
                members=offer.members,
                sha256=entry.sha256,
                bytes=entry.bytes,
            )
            try:
                found = self._sources[offer.source].fetch(place, scratch, progress)
            except (FreeholdError, KeyError) as error:
                if isinstance(error, FreeholdError) and error.code in ABORTS:
                    raise
                reasons.append(f"{offer.source}: {error}")
                continue
            return msgspec.structs.replace(
                found, name=entry.name, licence=entry.licence, notice=entry.notice
            )
        raise Unavailable(
            "unavailable.source", f"no origin delivered {entry.name}: {'; '.join(reasons)}"
        )
