"""A compression from request to version: starts the child, watches it, registers what comes.

The folder of a compression is in scratch, named by what is compressed and how; a second try goes
on where the first was stopped. Nothing is a version before its bytes are whole and judged.
"""

import errno
import hashlib
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import msgspec
import psutil

from freehold.errors import EngineLost, FreeholdError, Invalid, NoCapacity, Unavailable
from freehold.models.child import end, lines, surroundings
from freehold.models.compress import calibration
from freehold.models.compress.order import Measured, Order
from freehold.models.compress.report import Report, gate
from freehold.models.compress.request import Aim, Hardware, Request, aim
from freehold.models.compress.weigh import Weighed, weigh
from freehold.models.gguf import read_header
from freehold.models.licence import together
from freehold.models.manifest import Manifest, describe
from freehold.models.pipeline import Workshop, scan_files
from freehold.models.registry import Draft, Version
from freehold.models.scan.finding import Finding
from freehold.models.source import Progress
from freehold.models.trial import read_cases
from freehold.store.versions import Artifact, Dependency

ROUNDS = 3
"""Children that are started for one compression; each goes on where the last one crashed."""
SLIGHT = 0.2
"""Share of the limit that a coarser key-value cache may cost."""
_KINDS = {"invalid": Invalid, "unavailable": Unavailable, "no_capacity": NoCapacity}


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A compression that was asked for, as it is kept until it is over."""

    id: str
    model: str
    number: int
    request: Request
    by: str


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a compression. ``loss`` is what the gate judged, ``kl`` the divergence."""

    model: str
    version: int
    bytes_before: int
    bytes_after: int
    kl: float | None
    loss: float
    tasks: dict[str, float]
    promoted: bool
    reasons: tuple[str, ...]
    report: str


def check(request: Request, version: Version) -> None:
    """Refuse before any work what cannot be compressed, or not as asked."""
    name, task = f"{version.row.model}:{version.row.number}", version.manifest.task
    if version.row.format != "gguf":
        raise Invalid(
            "invalid.format",
            f"{name} is {version.row.format}: convert it to GGUF first, only that is compressed",
        )
    if task == "rerank":
        raise Invalid("invalid.task", f"{name} ranks: there is no measure of its loss yet")
    if request.tasks is not None and task == "embedding":
        raise Invalid(
            "invalid.tests", f"{name} does not write: leave the tasks out, retrieval is measured"
        )
    if request.calibration is not None:
        calibration.parse(request.calibration.encode(), "the calibration text")
    if request.tasks is not None:
        read_cases(request.tasks.encode(), "the tasks")


def folder(shop: Workshop, version: Version, request: Request) -> Path:
    """Return where a compression keeps what it has done so far."""
    named = msgspec.json.encode((version.row.digest, request))
    return shop.scratch / f"compress-{hashlib.sha256(named).hexdigest()[:16]}"


def compress(job: Job, shop: Workshop, progress: Progress, now: float) -> Done:
    """Do a compression and register its result. Blocks for minutes."""
    version = shop.registry.admit(shop.registry.version(job.model, job.number))
    source = shop.blobs.path(version.row.digest)
    hardware = Hardware(
        memory=psutil.virtual_memory().total, cores=psutil.cpu_count(logical=False) or 1
    )
    aimed = aim(job.request, version.manifest, version.row.bytes, hardware)
    scratch = folder(shop, version, job.request)
    scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
    texts = (
        calibration.built_in()
        if job.request.calibration is None
        else calibration.parse(job.request.calibration.encode(), "the tenant's own text")
    )
    order = Order(
        source=str(source),
        scratch=str(scratch),
        loss=aimed.loss,
        target=aimed.target,
        threads=hardware.cores,
        learn=texts.learn,
        judge=texts.judge,
        encoder=version.manifest.task == "embedding",
        tiny=aimed.target is not None and aimed.target < version.manifest.parameters * 3.2 / 8,
        parent=version.row.digest,
    )
    _check_room(version, order, scratch)
    try:
        measured = _measure(order, version, progress)
        weighed = weigh(
            source, scratch / "compressed.gguf", version, job.request.tasks, progress,
            _drafts(version, shop),
        )  # fmt: skip
        return _register(job, version, aimed, measured, weighed, scratch, shop, texts.source, now)
    except Invalid:  # no later try can make use of what is there
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            shutil.rmtree(scratch, ignore_errors=True)
            raise _full(scratch) from error
        raise


def _register(
    job: Job, parent: Version, aimed: Aim, measured: Measured, weighed: Weighed, scratch: Path,
    shop: Workshop, texts: str, now: float,
) -> Done:  # fmt: skip
    path = scratch / "compressed.gguf"
    manifest = describe(read_header(path))
    # What was wrong with the parent's text is in the child's, whoever released the parent.
    findings = scan_files({"model.gguf": path}, shop, lambda *_: None)
    digest, size = shop.blobs.add(path, move=False)
    draft = _draft(
        job, parent, manifest, findings, Artifact(name="model.gguf", digest=digest, bytes=size)
    )
    made, _ = shop.registry.register(draft, now, job.by)
    verdict = gate(measured, aimed.loss, weighed.tasks, aimed.target)
    promoted = verdict.passed and job.request.promote and not findings
    report = Report(
        model=job.model,
        parent=job.number,
        parent_digest=parent.row.digest,
        version=made.row.number,
        digest=digest,
        made=now,
        limit=aimed.loss,
        target=aimed.target,
        chosen=aimed.why,
        calibration=texts,
        measured=measured,
        tasks=weighed.tasks,
        speed_before=weighed.before,
        speed_after=weighed.after,
        launch={**_cache(measured, aimed.loss), **weighed.launch},
        promoted=promoted,
        reasons=verdict.reasons,
    )
    shop.registry.keep_report(job.model, made.row.number, msgspec.json.encode(report).decode(), now)
    if promoted and shop.registry.aliases(job.model).get("production") != made.row.number:
        shop.registry.promote(job.model, "production", made.row.number, now, job.by)
    shutil.rmtree(scratch, ignore_errors=True)
    return Done(
        model=job.model,
        version=made.row.number,
        bytes_before=parent.row.bytes,
        bytes_after=size,
        kl=measured.loss.mean if measured.metric == "kl" else None,
        loss=measured.loss.mean,
        tasks={task.name: task.change.mean for task in weighed.tasks},
        promoted=promoted,
        reasons=verdict.reasons,
        report=f"/api/models/{job.model}/versions/{made.row.number}/report",
    )


def _draft(
    job: Job,
    parent: Version,
    manifest: Manifest,
    findings: tuple[Finding, ...],
    artifact: Artifact,
) -> Draft:
    lineage = Dependency(
        kind="parent", target=job.model, target_number=job.number, digest=parent.row.digest
    )
    return Draft(
        model=job.model,
        manifest=manifest,
        artifacts=(artifact,),
        format="gguf",
        licence=together(parent.row.licence, parent.manifest.licence),
        notice=parent.row.notice,
        source=f"compress:{job.model}:{job.number}",
        resolved=f"compressed from {job.model}:{job.number}, sha256:{parent.row.digest}",
        dependencies=(lineage, *(d for d in parent.dependencies if d.kind != "parent")),
        findings=findings,
    )


def _cache(measured: Measured, limit: float) -> dict[str, str]:
    """Propose the coarsest key-value cache that costs next to nothing beside the limit."""
    fine = [
        kind for kind in ("Q4_0", "Q8_0")
        if kind in measured.caches
        and measured.loss.high + max(0.0, measured.caches[kind].high) <= limit
        and measured.caches[kind].high <= SLIGHT * limit
    ]  # fmt: skip
    return {"key-value cache": fine[0]} if fine else {}


def _drafts(version: Version, shop: Workshop) -> dict[str, Path]:
    """Return models here with the same vocabulary and less than half the size, smallest first."""
    own, found = version.manifest, []
    for name in shop.registry.names():
        each = shop.registry.versions(name)[-1]
        same = each.manifest.tokenizer is not None and each.manifest.tokenizer == own.tokenizer
        smaller = each.manifest.parameters * 2 < own.parameters
        if same and smaller and each.manifest.task == own.task and name != version.row.model:
            found.append((each.row.bytes, f"{name}:{each.row.number}", each.row.digest))
    return {name: shop.blobs.path(digest) for _, name, digest in sorted(found)[:2]}


def _check_room(version: Version, order: Order, scratch: Path) -> None:
    """Refuse before any work what memory or disk could not hold."""
    full = version.manifest.parameters * 2
    vocabulary = (version.manifest.tokenizer and version.manifest.tokenizer.tokens) or 32_000
    memory = full + order.threads * vocabulary * 4 * (2 * 256 + 7 * 32) + 300_000_000
    available = psutil.virtual_memory().available
    if memory > available:
        raise NoCapacity(
            "unavailable.memory",
            f"compressing this takes {memory / 1e9:.1f} GB of memory and {available / 1e9:.1f} GB "
            "are free: stop something, or compress it on a larger machine",
        )
    disk = 2 * full + version.row.bytes * 2 + 16 * 224 * vocabulary * 2
    have = sum(path.stat().st_size for path in scratch.iterdir() if path.is_file())
    if disk - have > shutil.disk_usage(scratch).free:
        raise Unavailable(
            "unavailable.disk",
            f"compressing this takes {disk / 1e9:.1f} GB of disk for a while, and there is less "
            f"in {scratch.parent}: free some and ask again; nothing was kept",
        )


def _measure(order: Order, version: Version, progress: Progress) -> Measured:
    size = version.row.bytes
    for number in range(ROUNDS):
        try:
            return _child(order, size, progress)
        except EngineLost:
            if number + 1 == ROUNDS:
                raise
    raise AssertionError


def _child(order: Order, size: int, progress: Progress) -> Measured:
    """Run the child to its end. Its progress is shares; ours is bytes of the model."""
    log = Path(order.scratch) / "log"
    with log.open("wb") as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", "freehold.models.compress.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=surroundings(),
        )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(msgspec.json.encode(order))
        child.stdin.close()
        for line in lines(child.stdout, progress, size):
            if measured := line.get("measured"):
                return msgspec.convert(measured, Measured)
            if error := line.get("error"):
                raise _error(error)
    finally:
        end(child)
    tail = log.read_bytes()[-300:].decode(errors="replace").strip().replace("\n", " ")
    raise EngineLost(
        "unavailable.compression",
        f"the process that compresses ended by itself ({child.returncode}): ask again and it goes "
        f"on where it was; it said: {tail}",
    )


def _error(error: dict[str, str]) -> Exception:
    if error["kind"] == "os":
        return OSError(int(error["code"]) if error["code"].isdigit() else 0, error["message"])
    kind = _KINDS.get(error["kind"], FreeholdError)
    return kind(error["code"], error["message"])


def _full(scratch: Path) -> Unavailable:
    return Unavailable(
        "unavailable.disk",
        f"no space left in {scratch.parent} while compressing: free some and ask again; "
        "nothing was kept",
    )


def waiting(shop: Workshop) -> list[Job]:
    """Return the compressions that were under way when the last life ended."""
    found = []
    for path in sorted(shop.scratch.glob("compress-*/job.json")):
        try:
            found.append(msgspec.json.decode(path.read_bytes(), type=Job))
        except (OSError, msgspec.DecodeError):
            path.unlink(missing_ok=True)
    return found


def forget(job: Job, shop: Workshop) -> None:
    """Strike out that a compression was asked for, wherever it is written."""
    for path in shop.scratch.glob("compress-*/job.json"):
        with suppress(OSError, msgspec.DecodeError):
            if msgspec.json.decode(path.read_bytes(), type=Job).id == job.id:
                path.unlink()


def note(job: Job, shop: Workshop) -> Path:
    """Write down that a compression was asked for; return where."""
    version = shop.registry.version(job.model, job.number)
    scratch = folder(shop, version, job.request)
    scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = scratch / "job.json"
    partial = path.with_suffix(".partial")
    partial.write_bytes(msgspec.json.encode(job))
    partial.replace(path)
    return path


def unused_since(shop: Workshop, age: float) -> list[Path]:
    """Return folders of compressions that nobody went on with for ``age`` seconds."""
    limit = time.time() - age
    return [path for path in shop.scratch.glob("compress-*") if path.stat().st_mtime < limit]
