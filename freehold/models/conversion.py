"""A version made of another: safetensors become GGUF, in a process of their own.

Nothing is visible as a version before it is whole, read again strictly and stored by its digest.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import msgspec

from freehold import __version__
from freehold.errors import Broken, Conflict, FreeholdError, Invalid, Unavailable
from freehold.models.adapter import base_of, carriers, check_fit
from freehold.models.convert.config import Config, read_json
from freehold.models.convert.recipes import recipe
from freehold.models.gguf import read_header
from freehold.models.licence import together
from freehold.models.manifest import describe
from freehold.models.pipeline import Workshop, scan_files
from freehold.models.registry import PRODUCTION, Draft, Version
from freehold.models.source import Progress
from freehold.store.versions import Artifact, Dependency

Kind = Literal["f32", "f16", "bf16"]
NEEDS = ("gguf", "numpy")
SCRATCH = "convert-"
"""How the folders of conversions begin in scratch; those of an earlier life are of no use."""


class _Line(msgspec.Struct):
    """What the process says: how far it is, or how it ended."""

    stage: str = ""
    done: int = 0
    total: int = 0
    result: dict[str, Any] | None = None
    error: dict[str, str] | None = None


def check_convertible(version: Version, shop: Workshop) -> None:
    """Raise what stands in the way of converting a version, before any work is done."""
    name = f"{version.row.model}:{version.row.number}"
    if version.row.format != "safetensors":
        raise Conflict("conflict.format", f"{name} is {version.row.format} already: deploy it")
    missing = [each for each in NEEDS if find_spec(each) is None]
    if missing:
        raise Unavailable(
            "unavailable.extra",
            f"conversion needs {' and '.join(missing)}: pip install 'freehold[convert]'",
        )
    shop.registry.admit(version)
    if version.manifest.adapter is not None:
        carriers(version, shop.registry)
        return
    for artifact in version.artifacts:
        if artifact.name == "config.json":
            config = Config(read_json(shop.blobs.path(artifact.digest), artifact.name))
            recipe(config).numbers(config)


def convert(
    version: Version, kind: Kind | None, shop: Workshop, progress: Progress, now: float, by: str
) -> tuple[Version, bool]:
    """Make a GGUF version of a safetensors one, and say whether it is new. Blocks.

    ``kind`` is what matrices are written as, as they are stored if None. The model's ``production``
    moves to the new version when it was at the one that nothing can run.
    """
    check_convertible(version, shop)
    row = version.row
    adapts = version.manifest.adapter is not None
    carrier = carriers(version, shop.registry)[0] if adapts else None
    for artifact in version.artifacts:
        shop.blobs.verify(artifact.digest, lambda done, of: progress("verify", done, of))
    scratch = shop.scratch / f"{SCRATCH}{row.digest[:16]}-{row.model[:64]}-{kind or 'stored'}"
    with _cleared(scratch):
        folder, target = scratch / "files", scratch / "model.gguf"
        _lay_out(version, folder, shop)
        order: dict[str, Any] = {
            "folder": str(folder),
            "target": str(target),
            "name": row.model,
            "kind": kind,
        }
        order["licence"] = version.manifest.licence
        if carrier is not None:
            own = carrier.manifest
            order["base"] = {"arch": own.architecture, "layers": own.layers, "head": own.head_key}
        _run(order, progress)
        progress("scan", 0, 0)
        header = read_header(target)
        if carrier is not None:
            check_fit(header, read_header(shop.blobs.path(carrier.row.digest)))
        findings = scan_files({"model.gguf": target}, shop, progress)
        digest, size = shop.blobs.add(
            target, move=True, progress=lambda done, of: progress("store", done, of)
        )
    found, new = shop.registry.register(
        Draft(
            model=row.model,
            manifest=describe(header),
            artifacts=(Artifact(name="model.gguf", digest=digest, bytes=size),),
            format="gguf",
            licence=together(row.licence, version.manifest.licence),
            notice=row.notice,
            source=f"convert:{row.model}:{row.number}" + (f":{kind}" if kind else ""),
            resolved=f"{row.resolved} sha256:{row.digest} converted by freehold {__version__}",
            dependencies=_dependencies(version),
            findings=findings,
        ),
        now,
        by,
    )
    if shop.registry.aliases(row.model).get(PRODUCTION) == row.number and not findings:
        shop.registry.promote(row.model, PRODUCTION, found.row.number, now, by)
    return found, new


def clear(scratch: Path) -> None:
    """Delete what conversions that were killed have left. Called at the start."""
    for left in scratch.glob(f"{SCRATCH}*"):
        shutil.rmtree(left, ignore_errors=True)


def _dependencies(version: Version) -> tuple[Dependency, ...]:
    row = version.row
    parent = Dependency(
        kind="parent", target=row.model, target_number=row.number, digest=row.digest
    )
    base = base_of(version)
    return (parent,) if base is None else (parent, base)


def _lay_out(version: Version, folder: Path, shop: Workshop) -> None:
    """Give a checkpoint's files their names again: links to where their bytes lie."""
    for artifact in version.artifacts:
        place = folder / artifact.name
        if ".." in place.parts or Path(artifact.name).is_absolute():
            raise Invalid("invalid.checkpoint", f"{artifact.name!r:.80} is no name of a file")
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        place.symlink_to(shop.blobs.path(artifact.digest).absolute())


@contextmanager
def _cleared(scratch: Path) -> Iterator[None]:
    """Have an empty folder while the block runs, and none after it."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True, mode=0o700)
    try:
        yield
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _run(order: dict[str, Any], progress: Progress) -> None:
    """Run the process to its end; it is killed when ``progress`` raises."""
    argv = (sys.executable, "-m", "freehold.models.convert")
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            with suppress(BrokenPipeError):  # its own words are read below
                child.stdin.write(msgspec.json.encode(order) + b"\n")
                child.stdin.flush()
            last = _Line()
            for line in child.stdout:
                last = msgspec.json.decode(line, type=_Line)
                if last.stage:
                    progress(last.stage, last.done, last.total)
            if last.error is not None:
                raise _error(last.error)
            if last.result is None:
                raise Broken("broken.conversion", f"the conversion ended: {_words(child)}")
        finally:
            child.kill()


def _error(said: dict[str, str]) -> FreeholdError:
    kind = Unavailable if said["code"].startswith("unavailable.") else Invalid
    return kind(said["code"], said["message"])


def _words(child: subprocess.Popen[bytes]) -> str:
    assert child.stderr is not None
    last = child.stderr.read()[-2000:].decode(errors="replace").strip().splitlines()
    return last[-1][:300] if last else "it was killed, or ran out of memory"
