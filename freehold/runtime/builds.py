"""Engines built for this machine: what is known of each, and which one a launch gets.

Layout: ``HOME/engines/ID/`` holds the server and ``build.json``. A build appears there by one
rename, after it was verified against the wheel and measured beside it.
"""

import math
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from freehold.errors import Invalid, Missing
from freehold.runtime.engine import Native
from freehold.runtime.process import write_private

WHEEL = "wheel"
AUTO = "auto"
FASTER = 1.05
"""How much faster, reading or writing, a build must be to be chosen by itself."""
NO_SLOWER = 0.95


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens a second: one client's prompt read, its answer written, eight clients' answers."""

    reading: float
    writing: float
    eight: float


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """How a build answers beside the wheel, on one model.

    ``places`` next-token distributions were compared; ``agreed`` had the same first choice, or one
    that was as good as tied; ``furthest`` is the largest difference of a probability there was.
    """

    model: str
    digest: str
    architecture: str
    places: int
    agreed: int
    furthest: float
    build: Speed
    wheel: Speed


class Failing(msgspec.Struct, frozen=True, kw_only=True):
    """Since when a build does not start any more (epoch seconds), and what it said."""

    since: float
    reason: str


class Build(msgspec.Struct, frozen=True, kw_only=True):
    """One build. ``files`` maps names to SHA-256; ``made`` says from what and how.

    ``failing`` is a mark in a file of its own: nothing that is written meanwhile can lose it.
    """

    id: str
    kind: Literal["native", "prebuilt"]
    backend: str
    version: str
    made: dict[str, str]
    files: dict[str, str]
    bytes: int
    created: float
    created_by: str
    matches: tuple[Match, ...] = ()
    failing: Failing | None = None


class Builds:
    """The builds of a home."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def all(self) -> list[Build]:
        """Return every build, oldest first; what cannot be read is none."""
        found = []
        for path in sorted(self.root.glob("*/build.json")):
            with suppress(OSError, msgspec.DecodeError):
                build = msgspec.json.decode(path.read_bytes(), type=Build)
                if build.id == path.parent.name:
                    found.append(msgspec.structs.replace(build, failing=self._failing(build.id)))
        return sorted(found, key=lambda build: (build.created, build.id))

    def get(self, build_id: str) -> Build:
        """Return a build; ``Missing`` when there is none of that id."""
        known = {build.id: build for build in self.all()}
        if build_id not in known:
            names = ", ".join([WHEEL, *known])
            raise Missing(
                "missing.engine",
                f"there is no engine {build_id!r:.80}: there is {names}",
                param="engine",
            )
        return known[build_id]

    def native(self, build: Build) -> Native:
        """Return what a launch needs to know of a build."""
        return Native(
            build=build.id,
            directory=str(self.root / build.id),
            files=tuple(sorted(build.files.items())),
        )

    def choose(self, wanted: str, architecture: str) -> Native | None:
        """Return the build that a launch gets, None for the wheel.

        ``wanted`` is ``wheel``, a build's id, or ``auto``: the fastest one that was verified on
        this architecture, measured faster than the wheel, and is not failing.
        """
        if wanted == WHEEL:
            return None
        if wanted != AUTO:
            build = self.get(wanted)
            if not any(match.architecture == architecture for match in build.matches):
                known = ", ".join(sorted({match.architecture for match in build.matches}))
                raise Invalid(
                    "invalid.engine",
                    f"the engine {wanted} was not verified on {architecture} (only on {known}): "
                    f"run freehold engine pick --model NAME with such a model",
                    param="engine",
                )
            return self.native(build)
        best = fastest(self.all(), architecture)
        return self.native(best) if best else None

    def passed_over(self, architecture: str) -> Build | None:
        """Return the build that ``auto`` would mean were it not failing, if there is one."""
        builds = self.all()
        sound = [msgspec.structs.replace(build, failing=None) for build in builds]
        best = fastest(sound, architecture)
        return next((each for each in builds if best and each.id == best.id and each.failing), None)

    def condemn(self, build_id: str, failing: Failing) -> None:
        """Mark a build as failing: ``auto`` does not mean it until acquitted, or made anew."""
        self.get(build_id)
        write_private(self._mark(build_id), failing)

    def acquit(self, build_id: str) -> None:
        """Take the mark away."""
        self._mark(build_id).unlink(missing_ok=True)

    def _mark(self, build_id: str) -> Path:
        return self.root / build_id / "failing.json"

    def _failing(self, build_id: str) -> Failing | None:
        try:
            return msgspec.json.decode(self._mark(build_id).read_bytes(), type=Failing)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            return Failing(since=0.0, reason=f"its mark cannot be read: {error}")

    def remove(self, build_id: str) -> Build:
        """Delete a build."""
        build = self.get(build_id)
        gone = self.root / f".{build_id}.gone"
        shutil.rmtree(gone, ignore_errors=True)
        (self.root / build_id).replace(gone)
        shutil.rmtree(gone, ignore_errors=True)
        return build


def gain(match: Match) -> float:
    """Return how many times as fast as the wheel a build is: the mean of reading and writing."""
    reading = match.build.reading / max(match.wheel.reading, 1e-9)
    writing = match.build.writing / max(match.wheel.writing, 1e-9)
    return math.sqrt(reading * writing)


def fastest(builds: Iterable[Build], architecture: str) -> Build | None:
    """Return the build to prefer to the wheel for an architecture, if any is. Pure."""
    ranked: Sequence[tuple[float, str, Build]] = sorted(
        (gain(match), build.id, build)
        for build in builds
        for match in build.matches[::-1]
        if not build.failing and match.architecture == architecture and is_faster(match)
    )
    return ranked[-1][2] if ranked else None


def is_faster(match: Match) -> bool:
    """Say whether a measurement makes a build worth having. Pure."""
    build, wheel = match.build, match.wheel
    if not (wheel.reading and wheel.writing):
        return False  # only compared, not measured
    slower = min(build.reading / wheel.reading, build.writing / wheel.writing) < NO_SLOWER
    return not slower and gain(match) >= FASTER
