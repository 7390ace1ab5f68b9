"""How much each column of a matrix matters: the mean square of what it is multiplied with.

The model reads the calibration text; at each multiplication with a weight ggml sums the squares
of the other side. Weights that share an input share the sums; so do the
experts of a mixture, whichever of them a token went to. In children only.

Engines round that other side too, to eight bits of the largest value in a block. Where a few inputs
are huge, what shares a block with them is lost, whatever the weights are: so the mean square of the
largest value of each block is kept as well.
"""

import ctypes as c
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count as count_from
from typing import Any

from freehold.models import ggml
from freehold.models.ggml import GET_ROWS, MUL_MAT, MUL_MAT_ID, TensorStruct
from freehold.models.llama import Context, Model, Readers

Progress = Callable[[int], None]
BLOCK = 32
"""Columns of a block: inputs of most types are rounded by 32s, those of K types by 256s."""
SCORED = 4
"""One of so many positions is scored: the matrix of scores is large, and one input of few."""


class Watcher:
    """What a context calls at every node while the calibration text goes through."""

    def __init__(self, wanted: Mapping[str, int]) -> None:
        self.sums: dict[str, Any] = {}
        self.peaks: dict[str, Any] = {}
        self.counts: dict[str, int] = {}
        self.shares: dict[str, str] = {}
        self.addresses: dict[str, set[int]] = {}
        self._wanted = wanted
        self._leaders: dict[int, str] = {}
        self.adds = True

    def begin(self) -> None:
        """A new text begins: nodes have new addresses."""
        self._leaders.clear()

    def __call__(self, node: TensorStruct, ask: bool) -> bool:
        """Answer whether this node is wanted, or take it in."""
        if node.op not in (MUL_MAT, MUL_MAT_ID, GET_ROWS) or not node.src[0]:
            return not ask
        weight = TensorStruct.from_address(node.src[0])
        name = weight.name.decode(errors="replace")
        if name not in self._wanted:
            return not ask
        if ask:
            self.addresses.setdefault(name, set()).add(weight.data)
            if node.op == GET_ROWS or not self.adds:
                return False
            leader = self._leaders.setdefault(node.src[1], name)
            self.shares[name] = leader
            return bool(leader == name)
        self._add(name, TensorStruct.from_address(node.src[1]))
        return True

    def _add(self, name: str, x: TensorStruct) -> None:
        cols, rows = x.ne[0], x.ne[1] * x.ne[2] * x.ne[3]
        if x.type or x.nb[1] != cols * 4 or cols != self._wanted[name]:
            return  # not plain floats: its weights go without
        sums = self.sums.setdefault(name, (c.c_float * cols)())
        blocks = cols // BLOCK
        peaks = self.peaks.setdefault(name, (c.c_float * blocks)())
        with ggml.graph(5 * cols * rows * 4 + 32 * cols) as g:
            values = g.tensor("F32", cols, rows, x.data)
            largest = g.pool_1d(g.abs(values), 0, BLOCK, BLOCK, 0)
            results = []
            for found, count, into in ((values, cols, sums), (largest, blocks, peaks)):
                total = g.sum_rows(g.cont(g.transpose(g.sqr(found))))
                results.append(g.add(g.tensor("F32", 1, count, c.addressof(into)), total))
            g.run(*results)
            c.memmove(sums, results[0].contents.data, cols * 4)
            c.memmove(peaks, results[1].contents.data, blocks * 4)
        self.counts[name] = self.counts.get(name, 0) + rows


def collect(
    model: Model,
    wanted: Mapping[str, int],
    texts: Sequence[Sequence[int]],
    threads: int,
    progress: Progress,
    *,
    embeds: bool = False,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the importance of the columns of ``wanted`` (name to columns) over these texts, and
    the mean square of the largest input of each block of them."""
    count = min(threads, len(texts))
    watchers = [Watcher(wanted) for _ in range(count)]
    length = max(map(len, texts))
    contexts = [Context(model, length, 1, watch=w, embeds=embeds) for w in watchers]
    of = dict(zip(map(id, contexts), watchers, strict=True))
    readers = Readers(contexts)
    done = count_from(1)

    def read(context: Context, text: Sequence[int]) -> None:
        of[id(context)].begin()
        if embeds:
            context.embed(text)
        else:
            context.run(text, every=SCORED)
        progress(next(done))

    try:
        readers.each(read, texts)
    finally:
        readers.close()
    found, peaks = {}, {}
    for name, leader in watchers[0].shares.items():
        parts = [w for w in watchers if w.counts.get(leader)]
        if parts:
            sums = zip(*(part.sums[leader] for part in parts), strict=True)
            number = sum(part.counts[leader] for part in parts)
            found[name] = _mean(map(sum, sums), number)
            largest = zip(*(part.peaks[leader] for part in parts), strict=True)
            peaks[name] = _mean(map(sum, largest), number)
    return found, peaks


def places(
    model: Model, wanted: Mapping[str, int], threads: int, *, embeds: bool = False
) -> dict[str, set[int]]:
    """Return where the weights of a loaded model lie in memory."""
    watcher = Watcher(wanted)
    watcher.adds = False
    context = Context(model, 8, threads, watch=watcher, embeds=embeds)
    try:
        tokens = [model.begins if model.begins is not None else 0, 1]
        if embeds:
            context.embed(tokens)
        else:
            context.run(tokens)
    finally:
        context.close()
    return watcher.addresses


def _mean(sums: Iterable[float], count: int) -> Any:
    values = [value / count for value in sums]
    # A column that was always zero still has to be stored somehow.
    floor = max(values) * 1e-7 or 1.0
    return (c.c_float * len(values))(*(max(value, floor) for value in values))
