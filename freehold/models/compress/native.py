"""Our own compression of a GGUF file, from its parent's side: room, the child, what it says."""

import shutil
import sys
from pathlib import Path

import msgspec
import psutil

from freehold.errors import EngineLost, FreeholdError, Invalid, NoCapacity, Unavailable
from freehold.models.child import Ended, ask, below, last_words
from freehold.models.compress import launch
from freehold.models.compress.compressor import Commission, Made
from freehold.models.compress.order import Measured, Order
from freehold.models.compress.request import aim
from freehold.models.compress.weigh import examine, weigh
from freehold.models.registry import Version
from freehold.models.source import Progress

ROUNDS = 3
"""Children that are started for one compression; each goes on where the last one crashed."""
KINDS = {"invalid": Invalid, "unavailable": Unavailable, "no_capacity": NoCapacity}


def compress(commission: Commission, progress: Progress) -> Made:
    """Measure, search, build and judge in a child; weigh and try launches in others."""
    version, request, scratch = commission.version, commission.request, commission.scratch
    (source,) = commission.files.values()
    aimed = aim(request, version.manifest, version.row.bytes, commission.hardware)
    order = Order(
        source=str(source),
        scratch=str(scratch),
        loss=aimed.loss,
        target=aimed.target,
        threads=commission.hardware.cores,
        learn=commission.texts.learn,
        judge=commission.texts.judge,
        encoder=version.manifest.task in ("embedding", "rerank"),
        ranks=version.manifest.task == "rerank",
        tiny=aimed.target is not None and aimed.target < version.manifest.parameters * 3.2 / 8,
        parent=version.row.digest,
    )
    _check_room(version, order, scratch)
    measured = _measure(order, version, progress)
    path = scratch / "compressed.gguf"
    weighed = weigh(source, path, version, request.tasks, progress)
    found = launch.Found(settings=version.settings)
    if version.manifest.task in ("chat", "completion"):
        found = launch.find(
            path,
            version.manifest,
            version.settings,
            measured,
            aimed.loss,
            commission.drafts,
            commission.place,
            commission.hardware.cores,
            lambda exam: examine(exam, progress),
        )
    return Made(
        files={"model.gguf": path},
        method="types of llama.cpp, one for each tensor",
        aim=aimed,
        measured=measured,
        weighed=weighed,
        launch=found,
    )


def _check_room(version: Version, order: Order, scratch: Path) -> None:
    """Refuse before any work what memory or disk could not hold."""
    full = version.manifest.parameters * 2
    vocabulary = (version.manifest.tokenizer and version.manifest.tokenizer.tokens) or 32_000
    memory = full + order.threads * (vocabulary * 4 * 2 * 256 + 20_000_000) + 300_000_000
    available = psutil.virtual_memory().available
    if memory > available:
        raise NoCapacity(
            "unavailable.memory",
            f"compressing this takes {memory / 1e9:.1f} GB of memory and {available / 1e9:.1f} GB "
            "are free: stop something, or compress it on a larger machine",
        )
    # The reference, the same with a matrix once, eight bits in its stead, and what comes of it.
    disk = int(2.6 * full) + version.row.bytes * 2 + 16 * 224 * vocabulary * 2
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
    argv = below([sys.executable, "-m", "freehold.models.compress.worker"])
    with log.open("w+b") as errors:
        answer = ask(argv, order, errors, progress, size)
    if isinstance(answer, Ended):
        raise ended(log, answer.code)
    if error := answer.get("error"):
        raise said(error)
    return msgspec.convert(answer["measured"], Measured)


def ended(log: Path, code: int) -> EngineLost:
    """Return the error of a child that ended without a word, from the last ones in its log."""
    tail = last_words(log.read_bytes())
    return EngineLost(
        "unavailable.compression",
        f"the process that compresses ended by itself ({code}): ask again and it goes on where it "
        f"was; it said: {tail}",
    )


def said(error: dict[str, str]) -> Exception:
    """Return the error that a child has told."""
    if error["kind"] == "os":
        return OSError(int(error["code"]) if error["code"].isdigit() else 0, error["message"])
    kind = KINDS.get(error["kind"], FreeholdError)
    return kind(error["code"], error["message"])
