"""How far a model's predictions are from another's, token by token, computed by ggml.

For a position with reference probabilities ``p`` and candidate probabilities ``q`` the divergence
is ``sum p log(p / q)`` in nats: what a reader who expects ``q`` pays for living in ``p``. Reference
log-probabilities are kept as 16-bit floats, which are finest where a probability is large: two
equal models differ by 0.000002 nats, others by half a per cent of what they differ.
In children only.
"""

import ctypes as c
import math
from collections.abc import Sequence

import msgspec

from freehold.models import ggml

AT_ONCE = 600_000
"""Scores at once: seven matrices of as many are held. More leave the processor's cache, which
costs three times the work (measured)."""


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """One value a position: divergence, both losses on the next token in nats, same first choice.

    The last position of a text has no next token; its losses are left out.
    """

    divergence: list[float] = []
    loss_before: list[float] = []
    loss_after: list[float] = []
    agrees: list[bool] = []


def keep(scores: int, rows: int, width: int, target: int) -> None:
    """Write log-probabilities of ``rows`` positions, whose scores lie at an address, as F16."""
    step = max(1, AT_ONCE // width)
    for first in range(0, rows, step):
        count = min(step, rows - first)
        with ggml.graph(3 * count * width * 4 + count * 64) as g:
            x = g.tensor("F32", width, count, scores + first * width * 4)
            p, top = g.soft_max(x), g.argmax(x)
            g.run(p, top)
            lse = g.tensor("F32", 1, count)
            sums = (c.c_float * count)(*_log_sums(x, p, top, width, count))
            c.memmove(lse.contents.data, sums, count * 4)
            centred = g.sub(x, lse)
            g.run(centred)
            ggml.library().ggml_fp32_to_fp16_row(
                centred.contents.data, target + first * width * 2, count * width
            )


def compare(scores: int, kept: int, rows: int, width: int, following: Sequence[int]) -> Scores:
    """Hold scores at an address against log-probabilities that ``keep`` wrote.

    ``following`` are the tokens that came after each position, one fewer than rows.
    """
    found, step = Scores(), max(1, AT_ONCE // width)
    for first in range(0, rows, step):
        count = min(step, rows - first)
        with ggml.graph(7 * count * width * 4 + count * 64) as g:
            x = g.tensor("F32", width, count, scores + first * width * 4)
            r = g.cast(g.tensor("F16", width, count, kept + first * width * 2), 0)
            p, q, top_r, top_x = g.soft_max(r), g.soft_max(x), g.argmax(r), g.argmax(x)
            crossed = g.sum_rows(g.mul(p, g.sub(r, x)))
            g.run(crossed, q, top_r, top_x)
            log_r = _log_sums(r, p, top_r, width, count)
            log_x = _log_sums(x, q, top_x, width, count)
            parts = (c.c_float * count).from_address(crossed.contents.data)
            choices = _integers(top_r, count), _integers(top_x, count)
            for row in range(count):
                gap = parts[row] - log_r[row] + log_x[row]
                found.divergence.append(max(0.0, gap))
                found.agrees.append(choices[0][row] == choices[1][row])
                at = first + row
                if at < len(following):
                    token = row * width + following[at]
                    found.loss_before.append(log_r[row] - _float(r, token))
                    found.loss_after.append(log_x[row] - _float(x, token))
    return found


def _log_sums(x: object, p: object, top: object, width: int, count: int) -> list[float]:
    """Return log(sum(exp(x))) of each row: off the largest, whose probability is never tiny."""
    best = _integers(top, count)
    at = [row * width + best[row] for row in range(count)]
    return [_float(x, place) - math.log(_float(p, place)) for place in at]


def _float(tensor: object, place: int) -> float:
    data: int = tensor.contents.data  # type: ignore[attr-defined]
    return c.c_float.from_address(data + 4 * place).value


def _integers(tensor: object, count: int) -> list[int]:
    data: int = tensor.contents.data  # type: ignore[attr-defined]
    return list((c.c_int32 * count).from_address(data))
