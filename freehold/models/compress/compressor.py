"""What compresses: a kind of plugin. Ours is ``compressor.native``; see ``builtin/``.

A compressor takes a version's files and leaves smaller ones in scratch, with what they lost by
measurement. It neither registers nor promotes: whatever it says goes through the same scan, gate
and report.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from freehold.errors import Invalid, Missing
from freehold.models.compress.calibration import Texts
from freehold.models.compress.launch import Draft, Found, Place
from freehold.models.compress.order import Measured
from freehold.models.compress.request import Aim, Hardware, Request
from freehold.models.compress.weigh import Weighed
from freehold.models.registry import Version
from freehold.models.source import Progress


class Commission(msgspec.Struct, frozen=True, kw_only=True):
    """One compression, as its compressor is asked for it.

    ``files`` are the version's by name, not to be changed; ``scratch`` is a folder of its own that
    it finds again when it is asked for the same after a kill.
    """

    version: Version
    files: Mapping[str, Path]
    request: Request
    scratch: Path
    texts: Texts
    hardware: Hardware
    place: Place
    drafts: Mapping[str, Draft] = {}


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it: files in scratch by name, what was aimed at, what was measured.

    ``method`` says in a few words how.
    """

    files: Mapping[str, Path]
    method: str
    aim: Aim
    measured: Measured
    weighed: Weighed = Weighed()
    launch: Found = Found()


class Compressor(Protocol):
    """A kind of compression. ``formats`` are those of the versions it takes, and makes."""

    formats: tuple[str, ...]

    def check(self, version: Version, request: Request) -> None:
        """Raise, before any work, what stands in the way of compressing a version so."""
        ...

    def compress(self, commission: Commission, progress: Progress) -> Made:
        """Do it; blocks. Whatever ``progress`` raises ends it, with nothing left running."""
        ...


def choose(
    version: Version, request: Request, compressors: Mapping[str, Compressor]
) -> tuple[str, Compressor]:
    """Return the compressor for a version, with its name; ``Invalid`` where none takes it."""
    name, form = f"{version.row.model}:{version.row.number}", version.row.format
    if request.compressor is not None and request.compressor not in compressors:
        known = ", ".join(sorted(compressors)) or "none"
        raise Missing(
            "missing.compressor",
            f"no compressor {request.compressor!r:.60}: there is {known}",
            param="compressor",
        )
    for each, found in sorted(compressors.items(), key=lambda item: item[0] != "native"):
        if request.compressor in (None, each) and form in found.formats:
            return each, found
    if request.compressor is not None:
        takes = " and ".join(compressors[request.compressor].formats)
        text = f"{name} is {form}, and compressor.{request.compressor} takes {takes}"
    else:
        text = f"{name} is {form}, and no compressor here takes that"
    raise Invalid("invalid.format", f"{text}: freehold model convert {name} may make a GGUF of it")
