"""Which types a tensor may become, and which tensors are judged together. Pure."""

import re
from collections.abc import Iterable, Sequence

from freehold.models.gguf import Tensor

WIDE = ("Q2_K", "Q3_K", "IQ4_XS", "Q4_K", "Q5_K", "Q6_K", "Q8_0")
"""For rows of whole 256s, cheapest first."""
NARROW = ("Q4_0", "IQ4_NL", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
"""For other rows of whole 32s."""
TINY = ("IQ2_S", "IQ3_XXS", "IQ3_S")
"""For rows of whole 256s where nothing else is small enough: slow to make and to run on CPUs."""
SMALL = 4096
"""Elements up to which a tensor is not worth a type of its own."""
BANDS = 6
"""Groups of layers whose tensors of one role are judged together."""
PROBE = "Q4_0"
"""What a group is made into to see how much its errors matter: quickly made, and coarse enough."""
PROBE_DOWN = ("Q4_K", "IQ4_NL")
"""The same for down-projections, with rows of whole 256s and others. A few of their inputs may be
huge, and then an error matters ten times as much as it does in a type that nothing is made into."""

_LAYER = re.compile(r"blk\.(\d+)\.(.+)\.weight")


def probe(tensor: Tensor) -> str:
    """Return what a matrix is made into to see how much its errors matter."""
    if "ffn_down" not in tensor.name:
        return PROBE
    return PROBE_DOWN[tensor.shape[0] % 256 != 0]


def inputs(kind: str) -> int:
    """Return among how many inputs an engine rounds to eight bits of the largest; 0: not at all."""
    if kind in ("F32", "F16", "BF16"):
        return 0
    return 256 if kind.endswith("_K") or (kind.startswith("IQ") and kind != "IQ4_NL") else 32


def is_matrix(tensor: Tensor) -> bool:
    """Say whether a tensor is worth quantising: two or more dimensions of whole blocks."""
    return (
        len(tensor.shape) > 1
        and tensor.elements > SMALL
        and tensor.shape[0] % 32 == 0
        and tensor.name.endswith(".weight")
        # A router of experts, or a convolution over time: tiny, and everything depends on it.
        and not re.search(r"gate_inp|ssm_|_norm|time_mix|conv", tensor.name)
    )


def candidates(tensor: Tensor, *, tiny: bool = False) -> tuple[str, ...]:
    """Return the types a matrix may become."""
    if tensor.shape[0] % 256 == 0:
        return (*TINY, *WIDE) if tiny else WIDE
    return NARROW


def groups(tensors: Iterable[Tensor], layers: int) -> dict[str, list[Tensor]]:
    """Return tensors by group: role and band of layers, or alone."""
    found: dict[str, list[Tensor]] = {}
    for tensor in tensors:
        found.setdefault(_group(tensor.name, layers), []).append(tensor)
    return found


def _group(name: str, layers: int) -> str:
    match = _LAYER.fullmatch(name)
    if match is None:
        return name.removesuffix(".weight")
    layer, role = int(match[1]), match[2]
    band = min(BANDS - 1, layer * BANDS // max(1, layers))
    return f"{role} {band + 1}/{BANDS}"


def shuffled(items: Sequence[int]) -> list[int]:
    """Return the items in an order of which every beginning is spread over all of them."""
    golden = 0.6180339887
    return [items[at] for at in sorted(range(len(items)), key=lambda at: at * golden % 1)]


def spread(count: int, wanted: int) -> Sequence[int]:
    """Return at most ``wanted`` of the numbers below ``count``, evenly."""
    if count <= wanted:
        return range(count)
    return [(2 * index + 1) * count // (2 * wanted) for index in range(wanted)]
