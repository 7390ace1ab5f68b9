"""Measure, search, build, judge: the stages of a compression, in the child that runs them.

Each stage keeps its result; what was killed goes on after the last one that was kept.
"""

import base64
import ctypes as c
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from freehold.errors import Invalid
from freehold.models import ggml
from freehold.models.compress import kinds, search
from freehold.models.compress.divergence import Scores
from freehold.models.compress.importance import collect
from freehold.models.compress.order import Checkpoints, Order
from freehold.models.compress.passages import LENGTH, pairs_of, texts_of
from freehold.models.compress.patient import FIRST, INPUTS, Patient, coarse, rounding
from freehold.models.compress.ruler import Embeddings, Predictions, Ranks
from freehold.models.compress.search import Choice, Option
from freehold.models.compress.stand_in import STAND_IN, merge, write_stand_in
from freehold.models.compress.weights import (
    FULL,
    Weights,
    dequantise,
    is_full,
    rows_of,
)
from freehold.models.gguf import Tensor, read_header
from freehold.models.gguf_write import entry, metadata_bytes, retyped, write
from freehold.models.llama import Model, Readers, readers

LEARNED = 16
"""Texts that importance is measured on."""
PROBED = 2
"""Texts that a group is judged by; half of each for large models, where it takes most of the
time."""
LARGE = 300_000_000
"""Parameters from which on a model is large."""
FEW = 6
"""Texts that are enough to say that a file loses far too much, or far less than it might."""
TOGETHER = 32
"""Tensors whose errors are kept at once."""
SAMPLED = 48
"""Rows of a tensor that its errors are measured on."""

Progress = Callable[[str, float], None]
Ruler = Predictions | Embeddings


class Work:
    """One compression under way. ``progress`` is told a stage and a share from 0 to 1."""

    def __init__(self, order: Order, progress: Progress) -> None:
        self.order, self.progress = order, progress
        self.scratch = Path(order.scratch)
        self.kept = Checkpoints(self.scratch)
        self.threads = ggml.Threads(order.threads)
        self.seconds: dict[str, float] = {}
        self.cpu: dict[str, float] = {}
        self._cpu = time.process_time()
        self.source = Path(order.source)
        self.header = read_header(self.source)
        self.dequantised = not is_full(self.header)

    # What to compare with

    def reference(self) -> Path:
        """Return the file of full precision: the source, or the source as 16-bit floats."""
        if not self.dequantised:
            return self.source
        path = self.scratch / "reference.gguf"
        if not path.exists():
            total = sum(tensor.elements for tensor in self.header.tensors) * 2
            dequantise(
                self.source, path, self.threads,
                lambda done: self.progress("dequantise", done / total),
            )  # fmt: skip
        return path

    def merged(self, weights: Weights) -> Path:
        """Return a file in which a matrix that was stored twice is stored once."""
        path = self.scratch / "merged.gguf"
        if not path.exists():
            merge(weights, path)
        return path

    def stand_in(self, weights: Weights) -> Weights:
        """Return the model in eight bits: what is learned about it is learned from that."""
        path = self.scratch / "stand-in.gguf"
        if not path.exists():
            write_stand_in(weights, path, self.threads, partial(self.progress, "stand-in"))
        return Weights(path)

    # What to learn from

    def texts(self, model: Model) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
        """Return token texts to learn from, to probe with, and to be judged by."""
        made = pairs_of if self.order.ranks else partial(texts_of, encoder=self.order.encoder)
        learn, judge = made(model, self.order.learn), made(model, self.order.judge)
        if not learn or not judge:
            raise Invalid("invalid.calibration", "the calibration text has too few tokens")
        large = sum(tensor.elements for tensor in self.header.tensors) > LARGE
        probed = 24 if self.order.encoder else PROBED
        cut = FIRST + (LENGTH - FIRST) // 2 if large else LENGTH
        picked = [learn[i][:cut] for i in kinds.spread(len(learn), probed)]
        learned = LEARNED if not self.order.encoder else 200
        most = self.order.thorough if not self.order.encoder else 400
        return (
            [learn[i] for i in kinds.spread(len(learn), learned)],
            picked,
            # The first few of them are spread over all, too.
            [judge[i] for i in kinds.shuffled(kinds.spread(len(judge), most))],
        )

    def ruler(self, texts: list[list[int]], name: str) -> Ruler:
        """Return what measures loss on these texts."""
        if self.order.encoder:
            return Ranks(texts) if self.order.ranks else Embeddings(texts)
        return Predictions(texts, self.scratch / f"{name}.logp")

    def importance(
        self, model: Model, weights: Weights, texts: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the importance of columns and the largest inputs of blocks, kept over a kill."""
        matrices = {t.name: t.shape[0] for t in self.matrices(weights)}
        importance = self.kept.find("importance", dict[str, str])
        peaks = self.kept.find("peaks", dict[str, str])
        if importance is None or peaks is None:
            measured = collect(
                model, matrices, texts, self.threads.count,
                lambda n: self.progress("importance", n / len(texts)),
                embeds=self.order.encoder,
            )  # fmt: skip
            importance, peaks = (
                {k: base64.b64encode(bytes(v)).decode() for k, v in each.items()}
                for each in measured
            )
            self.kept.keep("peaks", peaks)
            self.kept.keep("importance", importance)
        return _arrays(importance), _arrays(peaks)

    def matrices(self, weights: Weights) -> list[Tensor]:
        """Return the tensors that may be quantised."""
        return [tensor for tensor in weights.header.tensors if kinds.is_matrix(tensor)]

    # What each choice costs

    def errors(
        self, weights: Weights, importance: dict[str, Any], peaks: dict[str, Any]
    ) -> dict[str, dict[str, float]]:
        """Return the weighted square error of every tensor as every type, from a sample of rows.

        With them, under ``INPUTS``, the square error that rounding the inputs makes.
        """
        found = self.kept.find("errors", dict[str, dict[str, float]]) or {}
        tensors = self.matrices(weights)
        for at in range(0, len(tensors), TOGETHER):
            wanted = [t for t in tensors[at : at + TOGETHER] if t.name not in found]
            measured = self.threads.each(
                lambda t: self._errors(weights, t, importance.get(t.name), peaks.get(t.name)),
                wanted,
            )
            if wanted:
                found |= {t.name: e for t, e in zip(wanted, measured, strict=True)}
                self.kept.keep("errors", found)
            self.progress("errors", min(1.0, (at + TOGETHER) / len(tensors)))
        return found

    def _errors(
        self, weights: Weights, tensor: Tensor, columns: Any, peaks: Any
    ) -> dict[str, float]:
        cols, total = tensor.shape[0], rows_of(tensor)
        rows = kinds.spread(total, max(SAMPLED, 65536 // cols))
        floats = (c.c_float * (len(rows) * cols))()
        for number, row in enumerate(rows):
            one = weights.floats(tensor, row, 1)
            c.memmove(c.addressof(floats) + number * cols * 4, one, cols * 4)
        wanted = {
            *kinds.candidates(tensor, tiny=self.order.tiny),
            kinds.probe(tensor),
            *self._own(tensor),
        }
        allowed = [k for k in sorted(wanted) if columns is not None or not _needs_importance(k)]
        share = len(rows) / total
        found = {k: coarse(floats, k, len(rows), cols, columns)[1] / share for k in allowed}
        if peaks is not None:
            found |= {k: e / share for k, e in rounding(floats, len(rows), cols, peaks).items()}
        return found

    def _own(self, tensor: Tensor) -> tuple[str, ...]:
        """Return the type that a tensor has in the source, where quantised."""
        before = next((t for t in self.header.tensors if t.name == tensor.name), None)
        return (before.type,) if before and before.type not in FULL else ()

    def sensitivity(
        self,
        patient: Patient,
        ruler: Ruler,
        importance: dict[str, Any],
        errors: Mapping[str, Mapping[str, float]],
    ) -> dict[str, float]:
        """Return the loss a unit of error makes, by group: each is made coarse and judged.

        ``ruler`` knows what the patient predicts when nothing is coarse.
        """
        layers = 1 + max((_layer(t.name) for t in patient.weights.header.tensors), default=0)
        found = self.kept.find("sensitivity", dict[str, float]) or {}
        grouped = kinds.groups(self.matrices(patient.weights), layers)
        for number, (group, tensors) in enumerate(grouped.items()):
            names = [t.name for t in tensors if patient.reachable(t.name)]
            if group not in found and names:
                probes = {t.name: kinds.probe(t) for t in tensors if t.name in names}
                patient.coarsen(probes, importance)
                loss = max(mean(ruler.score(patient.readers)), 1e-9)
                patient.restore(names)
                error = sum(errors[name][kind] for name, kind in probes.items())
                found[group] = loss / max(error, 1e-30)
                self.kept.keep("sensitivity", found)
            self.progress("sensitivity", (number + 1) / len(grouped))
        return self.spread_groups(patient.weights, found)

    def spread_groups(self, weights: Weights, found: Mapping[str, float]) -> dict[str, float]:
        """Return what is known of groups by the name of each tensor in them."""
        layers = 1 + max((_layer(t.name) for t in weights.header.tensors), default=0)
        grouped = kinds.groups(self.matrices(weights), layers)
        return {
            tensor.name: found[group]
            for group, tensors in grouped.items()
            if group in found
            for tensor in tensors
        }

    # What to choose

    def options(
        self,
        weights: Weights,
        errors: Mapping[str, Mapping[str, float]],
        sensitivity: Mapping[str, float],
        floor: float,
    ) -> dict[str, list[Option]]:
        """Return what every matrix may become, with its bytes and loss.

        ``floor`` is what was lost when every matrix was ``STAND_IN``: what rounded inputs lose is
        foreseen tensor by tensor, and corrected so that all of it adds up to that.
        """
        matrices = [t for t in self.matrices(weights) if t.name in sensitivity]

        def lost(tensor: Tensor, *errors_of: str) -> float:
            known = errors[tensor.name]
            return sum(known.get(each, 0.0) for each in errors_of) * sensitivity[tensor.name]

        everything = sum(lost(t, STAND_IN, INPUTS[32]) for t in matrices)
        share = min(1.0, floor / everything) if everything else 0.0

        def inputs(tensor: Tensor, kind: str) -> float:
            width = kinds.inputs(kind)
            return share * lost(tensor, INPUTS[width]) if width else 0.0

        found = {}
        for tensor in matrices:
            full = "F16" if tensor.type == "F32" else tensor.type
            choices = [Option(full, retyped(tensor, full).bytes, 0.0)]
            for kind in kinds.candidates(tensor, tiny=self.order.tiny):
                if kind in errors[tensor.name]:
                    loss = lost(tensor, kind) + inputs(tensor, kind)
                    choices.append(Option(kind, retyped(tensor, kind).bytes, loss))
            for kind in self._own(tensor):
                # The source's own bytes are taken over as they are: nothing is lost by that, and
                # nobody wants a larger file than the one there is.
                choices = [o for o in choices if o.kind != kind]
                if not self._is_merged(tensor, weights):
                    own = Option(kind, retyped(tensor, kind).bytes, inputs(tensor, kind))
                    choices = [o for o in choices if o.bytes < own.bytes] + [own]
            found[tensor.name] = choices
        return found

    def _is_merged(self, tensor: Tensor, weights: Weights) -> bool:
        return tensor.name == "token_embd.weight" and "output.weight" not in weights.tensors

    # What comes of it

    def build(self, weights: Weights, choice: Choice, importance: dict[str, Any]) -> Path:
        """Write the file of a choice. Tensors that an earlier file has as wanted are taken over."""
        path = self.scratch / "compressed.gguf"
        entries = metadata_bytes(weights.path, weights.header)
        entries.pop("general.file_type", None)
        entries["general.quantization_version"] = entry("general.quantization_version", 2)
        if self.order.parent:
            entries["freehold.parent.sha256"] = entry("freehold.parent.sha256", self.order.parent)
        wanted = [retyped(t, choice.kinds.get(t.name, t.type)) for t in weights.header.tensors]
        total, written = sum(t.bytes for t in wanted), [0]
        earlier = Weights(path) if path.exists() else None
        source = Weights(self.source)

        def data(tensor: Tensor) -> Iterator[Any]:
            own = source.tensors.get(tensor.name)
            had = earlier.tensors.get(tensor.name) if earlier else None
            full = weights.tensors[tensor.name]
            if own is not None and own.type == tensor.type and not self._is_merged(full, weights):
                yield from source.raw(own)
            elif earlier is not None and had is not None and had.type == tensor.type:
                yield from earlier.raw(had)
            elif full.type == tensor.type:
                yield from weights.raw(full)
            else:
                yield from weights.quantised(full, tensor.type, importance, self.threads)
            written.append(tensor.bytes)
            self.progress("build", sum(written) / total)

        write(path, entries, wanted, data)
        return path

    def judge(
        self,
        path: Path,
        ruler: Ruler,
        stage: str,
        cache: str = "F16",
        enough: Callable[[Sequence[Scores]], bool] | None = None,
    ) -> list[Scores]:
        """Load a file as an engine would and return its scores on the judging texts.

        Where the first few already say ``enough``, they are all that is returned.
        """
        self.progress(stage, 0.0)
        model = Model(path)
        try:
            reading = self.readers(model, cache)
            try:
                self.show(reading, stage, ruler)
                if enough is None or isinstance(ruler, Embeddings):
                    return ruler.score(reading)
                few = ruler.part(0, FEW).score(reading)
                if enough(few):
                    return few
                self.show(reading, stage, ruler, FEW)
                return few + ruler.part(FEW, sys.maxsize).score(reading)
            finally:
                reading.close()
        finally:
            model.close()

    def show(self, reading: Readers, stage: str, ruler: Ruler, before: int = 0) -> None:
        """Let what is read from now on be progress of a stage; ``before`` texts are done."""
        every = max(1, len(ruler.texts))
        reading.told = lambda done: self.progress(stage, min(1.0, (before + done) / every))

    def readers(self, model: Model, cache: str = "F16") -> Readers:
        """Return contexts of a model, one a thread."""
        return readers(model, LENGTH, self.threads.count, cache=cache, embeds=self.order.encoder)

    def clock(self, stage: str, since: float) -> None:
        """Note how long a stage took, and how much of all cores' time."""
        now = time.process_time()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - since
        self.cpu[stage] = self.cpu.get(stage, 0.0) + now - self._cpu
        self._cpu = now


def search_for(
    options: Mapping[str, Sequence[Option]], rest: int, order: Order, scale: float, base: float
) -> Choice:
    """Return the choice for an order; ``rest`` is what of the file is no matrix, in bytes.

    ``scale`` is measured over foreseen loss so far, ``base`` is lost before anything is chosen.
    """
    if order.target is not None:
        return search.best(options, order.target - rest)
    return search.smallest(options, max(0.0, order.loss - base) / scale)


def mean(scores: Sequence[Scores]) -> float:
    """Return the mean loss over all positions."""
    values = [value for each in scores for value in each.divergence]
    return sum(values) / max(1, len(values))


def _layer(name: str) -> int:
    parts = name.split(".")
    return int(parts[1]) if parts[0] == "blk" and parts[1].isdigit() else 0


def _needs_importance(kind: str) -> bool:
    number = ggml.TYPE_NUMBERS[kind]
    return bool(ggml.library().ggml_quantize_requires_imatrix(number))


def _arrays(kept: Mapping[str, str]) -> dict[str, Any]:
    found = {name: base64.b64decode(text) for name, text in kept.items()}
    return {k: (c.c_float * (len(v) // 4)).from_buffer_copy(v) for k, v in found.items()}
