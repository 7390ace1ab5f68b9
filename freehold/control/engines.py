"""Engines for this machine: jobs that build, find, compare, remove them, and tune deployments."""

import hashlib
import os
import platform
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

from freehold.control.control import Control
from freehold.control.home import Home
from freehold.control.jobs import Job
from freehold.errors import Conflict, FreeholdError, Missing, Unavailable
from freehold.models.deploy import LOCAL_ENGINE
from freehold.models.engines import build as compiling
from freehold.models.engines.hardware import look
from freehold.models.engines.match import ROUNDS, Setting, match, smallest_of_each
from freehold.models.engines.source import PINNED, Archives, given, unpack
from freehold.models.fallback import without
from freehold.models.registry import Version
from freehold.models.source import ABORTS, Progress
from freehold.runtime import process
from freehold.runtime.builds import Build, Match, fastest
from freehold.store.blobs import measure
from freehold.store.files import sync

SERVER = compiling.SERVER
LIBRARIES = ("lib*.so", "lib*.so.*", "lib*.dylib")


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What to build: from a file or the pinned source, for which backend, tried on which models."""

    source: str | None = None
    sha256: str | None = None
    backend: str = "auto"
    jobs: int | None = None
    models: tuple[str, ...] = ()
    rounds: int = ROUNDS


class _Trials(msgspec.Struct, frozen=True):
    """What engines are tried on, and how often their speeds are measured."""

    versions: Sequence[Version]
    rounds: int


def start_build(control: Control, wish: Wish, by: str) -> Job:
    """Start compiling an engine; it appears once it answers like the wheel, and is measured."""
    tools = compiling.find_tools()
    plan = compiling.plan(wish.backend, look())
    tried = _Trials(_versions(control, wish.models), wish.rounds)

    def work(progress: Progress) -> dict[str, object]:
        with Yard(control) as yard:
            archive, digest = _source(control, wish, yard.root, progress)
            made = {
                "source": digest,
                "compiler": compiling.compiler_version(tools),
                "processor": _processor(),
                "options": " ".join([*compiling.OPTIONS, *plan.options]),
            }
            build_id = _id(plan.backend, made)
            root = unpack(archive, yard.root / f"source-{digest[:16]}", progress)
            jobs = wish.jobs or max(1, len(os.sched_getaffinity(0)))
            binary = compiling.compile_server(
                root, yard.root / build_id, tools, plan, jobs, progress
            )
            build = _register(
                control, yard, build_id, "native", plan.backend, made, [binary], tried, progress,
                by,
            )  # fmt: skip
            yard.done()
        return {**_told(build), "advice": plan.advice}

    return control.jobs.start("engine", f"build {plan.backend}", work, same=wish)


def start_pick(
    control: Control, binary: str | None, models: Sequence[str], rounds: int, by: str
) -> Job:
    """Start measuring every engine there is beside the wheel, and a prebuilt one given by path."""
    tried = _Trials(_versions(control, models), rounds)

    def work(progress: Progress) -> dict[str, object]:
        with Yard(control) as yard:
            new = None
            if binary is not None:
                new = _take_in(control, yard, Path(binary), tried, progress, by).id
            for build in [each for each in control.builds.all() if each.id != new]:
                _measure_again(control, yard, build, tried, progress)
        _changed(control)
        best = {v.manifest.architecture: fastest(control.builds.all(), v.manifest.architecture)
                for v in tried.versions}  # fmt: skip
        return {
            "best": {name: build.id if build else "wheel" for name, build in best.items()},
            "builds": [_told(build) for build in control.builds.all()],
        }

    return control.jobs.start(
        "engine", f"pick {binary or ''}".strip(), work, same=(tuple(models), rounds)
    )


def remove(control: Control, build_id: str) -> Build:
    """Remove an engine that no deployment asks for by name; those on ``auto`` change over."""
    build = control.builds.get(build_id)
    using = [each.name for each in control.deployments.all() if each.build == build_id]
    if control.settings.runtime.build == build_id:
        using.append("the settings (runtime.build)")
    if using:
        raise Conflict(
            "conflict.in_use", f"{build_id} is asked for by {', '.join(using)}: change that first"
        )
    control.builds.remove(build_id)
    control.deployments.forget_plans()
    return build


def end_trials(home: Home) -> None:
    """End engines on trial and compilers that nobody waits for any more: at a start, at a stop."""
    root = home.scratch / "engines"
    if not root.exists():
        return
    folders = [root / "trials", *(path for path in root.glob("*") if path.is_dir())]
    for folder in dict.fromkeys(folders):
        for left in process.owned_by(folder):
            process.send(left, signal.SIGKILL)


class Yard:
    """Where engines are built and tried: one job at a time, what a killed one left goes first."""

    def __init__(self, control: Control) -> None:
        self.root = control.home.scratch / "engines"
        self._control = control

    def __enter__(self) -> "Yard":
        if not self._control.yard.acquire(blocking=False):
            raise Unavailable(
                "unavailable.engine", "another engine is being built or measured: wait for it"
            )
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        end_trials(self._control.home)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.trials, ignore_errors=True)
        shutil.rmtree(self.root / "new", ignore_errors=True)
        self._control.yard.release()

    @property
    def trials(self) -> Path:
        """Where engines on trial write."""
        return self.root / "trials"

    def done(self) -> None:
        """Delete source and objects: what was built from them is registered."""
        shutil.rmtree(self.root, ignore_errors=True)


def _versions(control: Control, models: Sequence[str]) -> list[Version]:
    if models:
        return [control.registry.resolve(name) for name in models]
    known = [each for name in control.registry.names() for each in control.registry.versions(name)]
    chosen = smallest_of_each([version for version in known if may_run(control, version)])
    if not chosen:
        raise Missing(
            "missing.model",
            "engines are tried on a model, and there is none: import one first, as with freehold "
            "model import smollm2-135m-instruct",
        )
    return chosen


def may_run(control: Control, version: Version) -> bool:
    """Say whether engines may be tried on a version: what nobody may load, they may not either."""
    try:
        control.registry.admit(version)
    except FreeholdError:
        return False
    return version.row.format == "gguf" and version.manifest.adapter is None


def _source(control: Control, wish: Wish, folder: Path, progress: Progress) -> tuple[Path, str]:
    if wish.source is not None:
        return given(Path(wish.source), wish.sha256)
    source: object = control.workshop.sources.get("pypi")
    if not isinstance(source, Archives):
        raise Missing(
            "missing.source", "the plugin source.pypi is not allowed: give a file with --source"
        )
    kept = folder / f"{PINNED.sha256}.tar.gz"
    if kept.is_file() and measure(kept)[0] == PINNED.sha256:
        return kept, PINNED.sha256
    pin = PINNED
    return source.archive(pin.project, pin.version, pin.sha256, folder, progress), pin.sha256


def _take_in(
    control: Control, yard: Yard, binary: Path, tried: _Trials, progress: Progress,
    by: str,
) -> Build:  # fmt: skip
    if not binary.is_file():
        raise Missing("missing.engine", f"there is no file {binary}", param="binary")
    files = [binary, *(lib for pattern in LIBRARIES for lib in binary.parent.glob(pattern))]
    made = {"taken from": str(binary), "server": measure(binary)[0]}
    build_id = _id("prebuilt", made)
    return _register(
        control, yard, build_id, "prebuilt", "prebuilt", made, files, tried, progress, by
    )


def _register(
    control: Control, yard: Yard, build_id: str, kind: str, backend: str, made: dict[str, str],
    files: Sequence[Path], tried: _Trials, progress: Progress, by: str,
) -> Build:  # fmt: skip
    """Try an engine where nobody sees it, then let it appear by one rename."""
    new = yard.root / "new" / build_id
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True, mode=0o700)
    for path in files:
        target = new / (SERVER if path is files[0] else path.name)
        shutil.copyfile(path, target)
        _strip(target)
        target.chmod(0o500)
        sync(target)
    build = Build(
        id=build_id,
        kind="native" if kind == "native" else "prebuilt",
        backend=backend,
        version=compiling.version_of(new / SERVER),
        made=made,
        files={path.name: measure(path)[0] for path in sorted(new.iterdir())},
        bytes=sum(path.stat().st_size for path in new.iterdir()),
        created=control.clock(),
        created_by=by,
    )
    build = msgspec.structs.replace(
        build,
        matches=tuple(
            _match(control, yard, build, new, each, tried.rounds, progress)
            for each in tried.versions
        ),
    )
    process.write_private(new / "build.json", build)
    sync(new / "build.json")
    place = control.builds.root / build_id
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if place.exists():
        control.builds.remove(build_id)
    new.replace(place)
    sync(place.parent)
    acquit(control, build_id)
    return build


def _measure_again(
    control: Control, yard: Yard, build: Build, tried: _Trials, progress: Progress
) -> None:
    """Try a build on versions; where it fails on one, what was known of that is forgotten."""
    kept = {each.digest: each for each in build.matches}
    for version in tried.versions:
        kept.pop(version.row.digest, None)
        try:
            directory = control.builds.root / build.id
            kept[version.row.digest] = _match(
                control, yard, build, directory, version, tried.rounds, progress
            )
        except FreeholdError as error:
            if error.code in ABORTS:
                raise
    renewed = msgspec.structs.replace(build, matches=tuple(kept.values()), failing=None)
    process.write_private(control.builds.root / build.id / "build.json", renewed)
    if any(version.row.digest in kept for version in tried.versions):
        acquit(control, build.id)


def acquit(control: Control, build_id: str) -> None:
    """Let deployments have a build again by themselves; from any thread."""
    control.builds.acquit(build_id)

    def forget() -> None:
        control.deployments.doubts = without(control.deployments.doubts, build_id)
        control.deployments.forget_plans()

    control.loop.call_soon_threadsafe(forget)


def _match(
    control: Control, yard: Yard, build: Build, directory: Path, version: Version,
    rounds: int,
    progress: Progress,
) -> Match:  # fmt: skip
    native = msgspec.structs.replace(control.builds.native(build), directory=str(directory))
    setting = Setting(
        engine=control.engines[LOCAL_ENGINE],
        folder=yard.trials,
        threads=control.settings.runtime.threads,
        rounds=rounds,
    )
    weights = control.upkeep.whole(version.artifacts[0].digest)
    return match(native, version, weights, setting, progress)


def _changed(control: Control) -> None:
    control.loop.call_soon_threadsafe(control.deployments.forget_plans)


def _id(backend: str, made: dict[str, str]) -> str:
    text = msgspec.json.encode(sorted(made.items()))
    return f"{backend}-{hashlib.sha256(text).hexdigest()[:10]}"


def _strip(path: Path) -> None:
    """Leave out what only a debugger needs, where there is a tool for it."""
    tool = shutil.which("strip")
    if tool is not None:
        subprocess.run([tool, str(path)], capture_output=True, check=False)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = [line for line in lines if line.startswith("flags")]
    mark = hashlib.sha256((flags[0] if flags else "").encode()).hexdigest()[:8]
    return f"{named[0] if named else platform.machine()} ({mark})"


def _told(build: Build) -> dict[str, object]:
    found: dict[str, object] = msgspec.to_builtins(build)
    return found
