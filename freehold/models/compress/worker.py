"""The child that compresses: an ``Order`` on standard input, lines of progress on standard output.

Every line is a JSON object: ``{"stage", "share"}``, and at last ``{"measured"}`` or ``{"error"}``.
Native code that crashes ends this process and no other.
"""

import contextlib
import fcntl
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from freehold.errors import FreeholdError, Unavailable
from freehold.models.compress import search
from freehold.models.compress.divergence import Scores
from freehold.models.compress.order import Measured, Order, Point, TensorRow
from freehold.models.compress.passages import LENGTH
from freehold.models.compress.patient import Patient
from freehold.models.compress.ruler import Embeddings, Predictions
from freehold.models.compress.search import Choice, Option
from freehold.models.compress.stand_in import is_tied
from freehold.models.compress.weights import Weights
from freehold.models.compress.work import Ruler, Work, mean, search_for
from freehold.models.intervals import Interval, mean_interval
from freehold.models.llama import Model

TRIES = 3
"""Files that are built at most: each is nearer to what was asked for than the one before."""
FAR = 0.5
"""Share of the allowed loss below which a file is far from as small as it might be."""
PARENT_SEEN = 0.5
"""Seconds after which a child looks whether its parent is there."""
CACHES = ("Q8_0", "Q4_0")
PASSING = ("reference.gguf", "merged.gguf", "stand-in.gguf", "judge.logp", "floor.logp",
           "probe.logp")  # fmt: skip
"""What nobody needs once all is measured."""


def compress(order: Order, say: object) -> Measured:
    """Do all of it; the file is ``compressed.gguf`` in scratch. Blocks for minutes."""
    work = Work(order, say)  # type: ignore[arg-type]
    if (done := work.kept.find("measured", Measured)) and (
        work.scratch / "compressed.gguf"
    ).exists():
        return done
    began = time.monotonic()
    reference = work.reference()
    full = Weights(reference)
    tied = is_tied(full)
    patched = Weights(work.merged(full)) if tied else full
    work.clock("reference", began)

    began = time.monotonic()
    model = Model(reference)
    learn, probe, texts = work.texts(model)
    reading = work.readers(model)
    ruler, floor = work.ruler(texts, "judge"), work.ruler(probe, "floor")
    work.progress("reference", 0.0)
    work.show(reading, "reference", ruler)
    ruler.learn(reading)
    work.show(reading, "reference", ruler, len(ruler.texts))
    floor.learn(reading)
    reading.close()
    model.close()
    base = _merged(work, patched, floor) if tied else 0.0
    work.clock("reference", began)

    began = time.monotonic()
    stand_in = work.stand_in(patched)
    model = Model(stand_in.path)
    importance, peaks = work.importance(model, patched, learn)
    model.close()
    work.clock("importance", began)

    began = time.monotonic()
    errors = work.errors(patched, importance, peaks)
    work.clock("errors", began)

    began = time.monotonic()
    names = [tensor.name for tensor in work.matrices(patched)]
    patient = Patient(stand_in, work.threads, names, LENGTH, embeds=order.encoder)
    lost = max(0.0, mean(floor.score(patient.readers)) - base)
    prober = work.ruler(probe, "probe")
    prober.learn(patient.readers)
    sensitivity = work.sensitivity(patient, prober, importance, errors)
    patient.close()
    work.clock("sensitivity", began)

    options = work.options(patched, errors, sensitivity, lost)
    rest = patched.header.data_offset + sum(
        tensor.bytes for tensor in patched.header.tensors if tensor.name not in options
    )
    choice, scores = _approach(work, patched, ruler, options, rest, base, importance)
    caches = {} if order.encoder else _caches(work, ruler, scores)
    measured = _measured(work, ruler, scores, choice, options, tied, caches, rest)
    work.kept.keep("measured", measured)
    for name in PASSING:
        (work.scratch / name).unlink(missing_ok=True)
    return measured


def _merged(work: Work, patched: Weights, ruler: Ruler) -> float:
    """Return what is lost by storing two matrices as one: any file that comes of this does."""
    model = Model(patched.path)
    reading = work.readers(model)
    found = mean(ruler.score(reading))
    reading.close()
    model.close()
    return found


def _approach(
    work: Work,
    patched: Weights,
    ruler: Ruler,
    options: dict[str, list[Option]],
    rest: int,
    base: float,
    importance: dict[str, object],
) -> tuple[Choice, list[Scores]]:
    """Build and judge until the loss is within what was allowed, and not far below it.

    Of the files that were built the smallest within the loss is left, or else the last one.
    """
    order, scale = work.order, 1.0
    built: list[tuple[Choice, list[Scores], float]] = []

    def is_far_off(few: Sequence[Scores]) -> bool:
        found = mean_interval([s.divergence for s in few])
        return found.low > order.loss or found.high < FAR * order.loss

    for number in range(TRIES):
        choice = search_for(options, rest, order, scale, base)
        if any(choice.kinds == before.kinds for before, _, _ in built):
            break
        again = order.target is None and number + 1 < TRIES
        scores = _build(
            work, patched, ruler, choice, importance, f"judge {number + 1}",
            is_far_off if again else None,
        )  # fmt: skip
        upper = mean_interval([s.divergence for s in scores]).high
        built.append((choice, scores, upper))
        if order.target is not None or choice.loss <= 0 or 0.8 * order.loss <= upper <= order.loss:
            break
        scale = max(0.2, min(5.0, (max(upper, mean(scores)) - base) / choice.loss))
        if upper > order.loss:
            scale *= 1.05 + 0.1 * number
    within = [each for each in built if each[2] <= order.loss]
    choice, scores, _ = min(within, key=lambda each: each[0].bytes) if within else built[-1]
    if choice is not built[-1][0] or len(scores) < len(ruler.texts):
        scores = _build(work, patched, ruler, choice, importance, "judge")
    return choice, scores


def _build(
    work: Work,
    patched: Weights,
    ruler: Ruler,
    choice: Choice,
    importance: dict[str, object],
    stage: str,
    enough: Callable[[Sequence[Scores]], bool] | None = None,
) -> list[Scores]:
    began = time.monotonic()
    path = work.build(patched, choice, importance)
    work.clock("build", began)
    began = time.monotonic()
    scores = work.judge(path, ruler, stage, enough=enough)
    work.clock("judge", began)
    return scores


def _caches(work: Work, ruler: Ruler, plain: Sequence[Scores]) -> dict[str, Interval]:
    """Return the loss with a coarser key-value cache, where the model can use one."""
    began = time.monotonic()
    found = {"F16": mean_interval([s.divergence for s in plain])}
    assert isinstance(ruler, Predictions)
    few = ruler.part(0, 4)
    for cache in CACHES:
        with contextlib.suppress(Unavailable):
            scores = work.judge(work.scratch / "compressed.gguf", few, f"cache {cache}", cache)
            extra = [
                [a - b for a, b in zip(one.divergence, other.divergence, strict=True)]
                for one, other in zip(scores, plain, strict=False)
            ]
            found[cache] = mean_interval(extra)
    work.clock("caches", began)
    return found


def _measured(
    work: Work,
    ruler: Ruler,
    scores: list[Scores],
    choice: Choice,
    options: dict[str, list[Option]],
    tied: bool,
    caches: dict[str, Interval],
    rest: int,
) -> Measured:
    compressed = Weights(work.scratch / "compressed.gguf")
    before = {tensor.name: tensor for tensor in work.header.tensors}
    rows = tuple(
        TensorRow(
            name=t.name, shape=t.shape, before=before[t.name].type, after=t.type,
            bytes_before=before[t.name].bytes, bytes_after=t.bytes,
            loss=_foreseen(options.get(t.name, ()), t.type),
        )
        for t in compressed.header.tensors
    )  # fmt: skip
    line = [Point(each.bytes + rest, each.loss) for each in search.frontier(options)]
    losses = [(s.loss_before, s.loss_after) for s in scores]
    told = {}
    if not work.order.encoder:
        told = _told(losses, scores)
    retrieval = None
    if isinstance(ruler, Embeddings):
        retrieval = mean_interval([[value] for value in ruler.retrieval()])
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return Measured(
        bytes_before=work.header.file_bytes,
        bytes_full=sum(t.elements for t in work.header.tensors) * 2 + work.header.data_offset,
        bytes_after=compressed.header.file_bytes,
        dequantised=work.dequantised,
        tied=tied,
        metric=ruler.metric,
        loss=mean_interval([s.divergence for s in scores]),
        foreseen=choice.loss,
        retrieval=retrieval,
        caches=caches,
        tokens_judged=sum(len(s.divergence) for s in scores),
        texts_learned=len(work.order.learn),
        tensors=rows,
        line=tuple(line[:: max(1, len(line) // 120)]),
        seconds={stage: round(value, 2) for stage, value in work.seconds.items()},
        cpu={stage: round(value, 2) for stage, value in work.cpu.items()},
        cpu_seconds=round(usage.ru_utime + usage.ru_stime, 1),
        peak_memory=usage.ru_maxrss * 1024,
        **told,
    )


def _told(losses: Sequence[tuple[list[float], list[float]]], scores: Sequence[Scores]) -> dict:  # type: ignore[type-arg]
    import math

    before = mean_interval([a for a, _ in losses]).mean
    after = mean_interval([b for _, b in losses]).mean
    rise = mean_interval([[q - p for p, q in zip(a, b, strict=True)] for a, b in losses])
    return {
        "perplexity_before": math.exp(before),
        "perplexity_after": math.exp(after),
        "perplexity": Interval(*(math.expm1(x) for x in (rise.mean, rise.low, rise.high))),
        "agreement": mean_interval([list(map(float, s.agrees)) for s in scores]),
    }


def _foreseen(options: Sequence[Option], kind: str) -> float:
    return next((option.loss for option in options if option.kind == kind), 0.0)


def alone(scratch: Path, patience: float = 60.0) -> int:
    """Return a lock on the folder: a child of a killed control may still be about to end."""
    lock = os.open(scratch / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                text = f"another process works in {scratch}: wait until it ends"
                raise Unavailable("unavailable.compression", text) from error
            time.sleep(0.2)


def end_with(parent: int) -> None:
    """End when the parent is no more: stages may take minutes, and the next life wants the lock."""
    while os.getppid() == parent:
        time.sleep(PARENT_SEEN)
    os._exit(1)


def main() -> None:
    """Read the order, work, say how it went."""
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    told = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever native code prints is no line of ours

    def tell(document: object) -> None:
        told.write(msgspec.json.encode(document) + b"\n")

    last: dict[str, str | float] = {"stage": "", "at": 0.0}

    def say(stage: str, share: float) -> None:
        now = time.monotonic()
        if stage != last["stage"] or now - float(last["at"]) > 0.2 or share >= 1:
            last.update(stage=stage, at=now)
            tell({"stage": stage, "share": share})

    try:
        alone(Path(order.scratch))
        tell({"measured": msgspec.to_builtins(compress(order, say))})
    except FreeholdError as error:
        tell({"error": {"kind": error.kind, "code": error.code, "message": error.message}})
    except OSError as error:
        tell({"error": {"kind": "os", "code": str(error.errno), "message": str(error)}})
    except MemoryError:
        tell({"error": {"kind": "unavailable", "code": "unavailable.memory",
                        "message": "not enough memory for this compression"}})  # fmt: skip


if __name__ == "__main__":
    os.umask(0o077)
    main()
