"""The catalog: models we know by name, pinned by digest. Data in ``catalog.toml``."""

import re
import tomllib
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Annotated

import msgspec

from freehold.errors import Invalid

Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
_PATTERN = re.compile(r"`str` matching regex '\^\[0-9a-f\]\{64\}\$'")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


class Offer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One place an entry can be had from, in that source's notation."""

    source: str
    location: str
    members: tuple[str, ...] = ()


class CatalogEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model by name. ``starter`` marks the one that a first start brings in."""

    name: str
    title: str
    quantisation: str
    licence: str
    notice: str
    sha256: Digest
    bytes: Annotated[int, msgspec.Meta(ge=1)]
    origins: Annotated[tuple[Offer, ...], msgspec.Meta(min_length=1)]
    starter: bool = False


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    models: tuple[CatalogEntry, ...]


def read_catalog(own: str = "") -> dict[str, CatalogEntry]:
    """Return the entries by name; those of the file at ``own`` go over ours."""
    builtin = resources.files("freehold.models").joinpath("catalog.toml").read_text("utf-8")
    entries = {entry.name: entry for entry in _parse(builtin, "catalog.toml")}
    if own:
        try:
            text = Path(own).expanduser().read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise Invalid("invalid.catalog", f"cannot read the catalog {own}: {error}") from error
        entries |= {entry.name: entry for entry in _parse(text, own)}
    return entries


def expand(text: str) -> list[str]:
    """Return what ``part{1..3}`` stands for: all of its counts in step; ``{01..03}`` pads."""
    ranges = _RANGE.findall(text)
    if not ranges:
        return [text]
    counts = {int(last) - int(first) for first, last in ranges}
    if len(counts) != 1 or not 0 <= (count := counts.pop()) < 1000:
        raise Invalid("invalid.source", f"the counts in {text!r:.120} do not go together")
    return [_RANGE.sub(partial(_counted, step), text) for step in range(count + 1)]


def explain(error: Exception) -> str:
    """Return what a check of types found, its patterns as people read them."""
    return _PATTERN.sub("64 hexadecimal digits in lower case, as sha256sum prints", str(error))


def _counted(step: int, found: re.Match[str]) -> str:
    width = len(found[1]) if found[1].startswith("0") else 0
    return str(int(found[1]) + step).zfill(width)


def _parse(text: str, name: str) -> tuple[CatalogEntry, ...]:
    try:
        return msgspec.convert(tomllib.loads(text), _File).models
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise Invalid("invalid.catalog", f"{name}: {explain(error)}") from error
