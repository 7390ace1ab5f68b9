"""An adapter as PEFT saves it (LoRA), planned as a GGUF adapter for llama.cpp."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from freehold.models.convert.config import read_json, unfit
from freehold.models.convert.plan import Kind, Part, Plan, check_types, commonest, name_map
from freehold.models.convert.recipes import RECIPES, Recipe, Values
from freehold.models.convert.weights import Stored, stored

_HALF = re.compile(r"base_model\.model\.(.+)\.lora_([AB])(?:\.default)?\.weight")


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """What must be known of an adapter's base: its architecture in GGUF, layers, size of a head."""

    arch: str
    layers: int
    head: int


def plan_adapter(folder: Path, base: Base, kind: Kind | None, name: str) -> Plan:
    """Decide what an adapter in a folder becomes; ``Invalid`` says why it cannot be converted."""
    config = read_json(folder / "adapter_config.json")
    chosen = next((each for each in RECIPES.values() if each.arch == base.arch), None)
    if chosen is None:
        raise unfit(f"adapters for the architecture {base.arch!r:.40} are not converted")
    tensors = stored({path.name: path for path in folder.glob("*.safetensors")})
    check_types(tensors.values())
    halves = _halves(tensors, chosen, base)
    written = kind.upper() if kind else commonest(tensors.values())
    parts = []
    for stem, both in halves.items():
        turned = chosen.rotates and stem.endswith(("attn_q.weight", "attn_k.weight"))
        for half, tensor in (("a", both["A"]), ("b", both["B"])):
            parts.append(
                Part(
                    name=f"{stem}.lora_{half}",
                    shape=tensor.shape,
                    kind=written,
                    source=tensor,
                    head=base.head if turned and half == "b" else 0,
                )
            )
    values: Values = {
        "general.type": "adapter",
        "general.name": name,
        "adapter.type": "lora",
        "adapter.lora.alpha": _alpha(config, {both["A"].shape[0] for both in halves.values()}),
    }
    return Plan(arch=base.arch, values=values, parts=tuple(parts))


def _alpha(config: Mapping[str, Any], ranks: set[int]) -> float:
    """Return by how much it counts: llama.cpp divides that by each matrix's rank, as PEFT does."""
    refused = {
        "use_dora": "weights are decomposed (DoRA)",
        "alpha_pattern": "matrices count by different amounts (alpha_pattern)",
        "modules_to_save": "whole modules are replaced (modules_to_save)",
        "fan_in_fan_out": "matrices are transposed (fan_in_fan_out)",
        "lora_bias": "biases are changed (lora_bias)",
        "alora_invocation_tokens": "tokens of a prompt switch it on (aLoRA)",
    }
    for field, what in refused.items():
        if config.get(field):
            raise unfit(f"its {what}, which llama.cpp does not do")
    if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none":
        raise unfit("it is no plain LoRA adapter without biases")
    alpha = config.get("lora_alpha")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not alpha > 0:
        raise unfit(f"its adapter_config.json has lora_alpha = {alpha!r:.40}")
    if not config.get("use_rslora"):
        return float(alpha)
    if len(ranks) != 1:
        raise unfit("it counts by the root of the rank (rsLoRA), and its ranks differ")
    return float(alpha) * math.sqrt(ranks.pop())


def _halves(
    tensors: Mapping[str, Stored], chosen: Recipe, base: Base
) -> dict[str, dict[str, Stored]]:
    """Return both halves of each change, by the name of the matrix in GGUF."""
    maps = name_map(base.arch, base.layers)
    found: dict[str, dict[str, Stored]] = {}
    for own, tensor in tensors.items():
        named = _HALF.fullmatch(own)
        known = chosen.rename(f"{named[1]}.weight") if named else None
        key = maps.get_name(known, try_suffixes=(".weight",)) if known else None
        if named is None or key is None or len(tensor.shape) != 2:
            raise unfit(f"llama.cpp has no place for its tensor {own!r:.100}")
        found.setdefault(key, {})[named[2]] = tensor
    for key, both in found.items():
        if len(both) != 2 or both["A"].shape[0] != both["B"].shape[1]:
            raise unfit(f"its halves for {key!r:.80} do not go together")
        if chosen.rotates and "attn_" in key and both["B"].shape[0] % base.head:
            raise unfit(f"its change of {key!r:.80} has {both['B'].shape[0]} rows: no whole heads")
    if not found:
        raise unfit("it holds no tensors")
    return found
