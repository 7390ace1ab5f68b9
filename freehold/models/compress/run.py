"""A compression from request to version: has it done by a compressor, registers what comes.

The folder of a compression is in scratch, named by what is compressed and how; a second try goes
on where the first was stopped. Nothing is a version before its bytes are whole and judged.
"""

import errno
import hashlib
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec
import psutil

from freehold.errors import FreeholdError, Invalid, Unavailable
from freehold.models.compress import calibration
from freehold.models.compress.compressor import Commission, Compressor, Made, choose
from freehold.models.compress.launch import Draft as Guess
from freehold.models.compress.launch import Place
from freehold.models.compress.report import Report, gate
from freehold.models.compress.request import Hardware, Request
from freehold.models.identify import Identified, identify
from freehold.models.licence import together
from freehold.models.pipeline import Workshop, scan_files
from freehold.models.registry import PRODUCTION, Draft, LaunchSettings, Version
from freehold.models.scan.finding import Finding
from freehold.models.source import Progress
from freehold.models.trial import read_cases
from freehold.store.versions import Artifact, Dependency

MOST_DRAFTS = 2


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
    launch: dict[str, str] = {}


def check(request: Request, version: Version, compressors: Mapping[str, Compressor]) -> None:
    """Refuse before any work what cannot be compressed, or not as asked."""
    choose(version, request, compressors)[1].check(version, request)
    if request.calibration is not None:
        calibration.parse(request.calibration.encode(), "the calibration text")
    if request.tasks is not None:
        read_cases(request.tasks.encode(), "the tasks")


def folder(shop: Workshop, version: Version, request: Request) -> Path:
    """Return where a compression keeps what it has done so far."""
    named = msgspec.json.encode((version.row.digest, request))
    return shop.scratch / f"compress-{hashlib.sha256(named).hexdigest()[:16]}"


def compress(
    job: Job,
    shop: Workshop,
    compressors: Mapping[str, Compressor],
    place: Place,
    progress: Progress,
    now: float,
) -> Done:
    """Do a compression and register its result. Blocks for minutes."""
    version = shop.registry.admit(shop.registry.version(job.model, job.number))
    name, compressor = choose(version, job.request, compressors)
    scratch = folder(shop, version, job.request)
    scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
    texts = (
        calibration.built_in()
        if job.request.calibration is None
        else calibration.parse(job.request.calibration.encode(), "the tenant's own text")
    )
    commission = Commission(
        version=version,
        files={each.name: shop.blobs.path(each.digest) for each in version.artifacts},
        request=job.request,
        scratch=scratch,
        texts=texts,
        hardware=Hardware(
            memory=psutil.virtual_memory().total, cores=psutil.cpu_count(logical=False) or 1
        ),
        place=place,
        drafts=_drafts(version, shop),
    )
    try:
        made = compressor.compress(commission, progress)
        return _register(job, version, name, made, texts.source, shop, now, scratch)
    except Invalid:  # no later try can make use of what is there
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            shutil.rmtree(scratch, ignore_errors=True)
            raise _full(scratch) from error
        raise


def _register(
    job: Job, parent: Version, compressor: str, made: Made, texts: str, shop: Workshop, now: float,
    scratch: Path,
) -> Done:  # fmt: skip
    identified = identify(made.files)
    # What was wrong with the parent's text is in the child's, whoever released the parent.
    findings = scan_files(made.files, shop, lambda *_: None)
    draft = _draft(job, parent, identified, findings, _stored(made, identified, shop), made.method)
    version, _ = shop.registry.register(draft, now, job.by)
    number, measured, weighed = version.row.number, made.measured, made.weighed
    if made.launch.settings != version.settings:
        shop.registry.set_launch_settings(job.model, number, made.launch.settings, now, job.by)
    verdict = gate(measured, made.aim.loss, weighed.tasks, made.aim.target)
    promoted = verdict.passed and job.request.promote and not findings
    reasons = verdict.reasons
    current = shop.registry.aliases(job.model).get(PRODUCTION)
    if promoted and (stays := _other_format(shop, job.model, current, identified.format)):
        promoted, reasons = False, (*reasons, stays)
    report = Report(
        model=job.model,
        parent=job.number,
        parent_digest=parent.row.digest,
        version=number,
        digest=version.row.digest,
        made=now,
        limit=made.aim.loss,
        target=made.aim.target,
        chosen=made.aim.why,
        calibration=texts,
        compressor=compressor,
        method=made.method,
        measured=measured,
        tasks=weighed.tasks,
        speed_before=weighed.before,
        speed_after=weighed.after,
        speed_launched=made.launch.speed,
        launch=_told(made.launch.settings),
        tried=made.launch.tried,
        promoted=promoted,
        reasons=reasons,
    )
    shop.registry.keep_report(job.model, number, msgspec.json.encode(report).decode(), now)
    if promoted and current != number:
        shop.registry.promote(job.model, PRODUCTION, number, now, job.by)
    shutil.rmtree(scratch, ignore_errors=True)
    return Done(
        model=job.model,
        version=number,
        bytes_before=parent.row.bytes,
        bytes_after=version.row.bytes,
        kl=measured.loss.mean if measured.metric == "kl" else None,
        loss=measured.loss.mean,
        tasks={task.name: task.change.mean for task in weighed.tasks},
        launch=report.launch,
        promoted=promoted,
        reasons=reasons,
        report=f"/api/models/{job.model}/versions/{number}/report",
    )


def _stored(made: Made, identified: Identified, shop: Workshop) -> tuple[Artifact, ...]:
    """Store what was made; the file that is the model comes first."""
    artifacts = []
    for name, path in made.files.items():
        digest, size = shop.blobs.add(path, move=False)
        artifacts.append(Artifact(name=name, digest=digest, bytes=size))
    return tuple(sorted(artifacts, key=lambda each: (each.name != identified.main, each.name)))


def _other_format(shop: Workshop, model: str, current: int | None, made: str) -> str:
    """Return why ``production`` stays, where what runs now would have no engine any more."""
    if current is None or shop.registry.version(model, current).row.format == made:
        return ""
    return f"{PRODUCTION} is version {current} in another format, and stays"


def _told(settings: LaunchSettings) -> dict[str, str]:
    fields = msgspec.structs.asdict(settings)
    return {name: str(value) for name, value in fields.items() if value is not None}


def _draft(
    job: Job,
    parent: Version,
    identified: Identified,
    findings: tuple[Finding, ...],
    artifacts: tuple[Artifact, ...],
    method: str,
) -> Draft:
    lineage = Dependency(
        kind="parent", target=job.model, target_number=job.number, digest=parent.row.digest
    )
    return Draft(
        model=job.model,
        manifest=identified.manifest,
        artifacts=artifacts,
        format=identified.format,
        licence=together(parent.row.licence, parent.manifest.licence),
        notice=parent.row.notice,
        source=f"compress:{job.model}:{job.number}",
        resolved=f"compressed from {job.model}:{job.number}, sha256:{parent.row.digest}: {method}",
        dependencies=(lineage, *(d for d in parent.dependencies if d.kind != "parent")),
        findings=findings,
    )


def _drafts(version: Version, shop: Workshop) -> dict[str, Guess]:
    """Return models here with the same vocabulary and less than half the size, smallest first.

    Only what may be used: not damaged, not in quarantine, its licence allowed or accepted.
    """
    own, found = version.manifest, []
    for name in shop.registry.names():
        with suppress(FreeholdError):
            each = shop.registry.resolve(name)
            theirs = each.manifest
            same = (
                own.tokenizer is not None
                and theirs.tokenizer is not None
                and theirs.tokenizer.sha256 == own.tokenizer.sha256
            )
            runs = each.row.format == "gguf" and theirs.adapter is None and each.damage is None
            smaller = theirs.parameters * 2 < own.parameters and theirs.task == own.task
            if same and runs and smaller and name != version.row.model:
                found.append((each.row.bytes, f"{name}:{each.row.number}", each))
    return {
        name: Guess(path=shop.blobs.path(each.row.digest), manifest=each.manifest, bytes=size)
        for size, name, each in sorted(found, key=lambda item: item[:2])[:MOST_DRAFTS]
    }


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
