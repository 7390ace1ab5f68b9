"""What a model in several files is, read off its configuration. Pure: parsed files in.

Names of fields are those of ``config.json`` and ``adapter_config.json`` as published models have
them; a model of pictures and text keeps the numbers of its language model in ``text_config``.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from freehold.errors import Invalid
from freehold.models.licence import together
from freehold.models.manifest import Adapter, Manifest, Task, Tokenizer
from freehold.models.onnx import Graph
from freehold.models.safetensors import DTYPES, Header

EMBEDS = frozenset(
    ("bert", "roberta", "xlm-roberta", "mpnet", "distilbert", "modernbert", "nomic_bert", "new",
     "gte", "camembert", "albert", "electra", "deberta", "deberta-v2")
)  # fmt: skip
"""Values of ``model_type`` whose models turn texts into vectors unless they say otherwise."""


def describe_checkpoint(
    config: Mapping[str, Any],
    shards: Iterable[Header],
    tokenizer: Tokenizer | None,
    template: str | None,
    card: Mapping[str, Any],
    *,
    embeds: bool,
) -> Manifest:
    """Return the manifest of a folder of safetensors; ``Invalid`` when it names no architecture.

    ``card`` is what the model card's head says; ``embeds`` that it came with pooling.
    """
    share: Counter[str] = Counter()
    packed = stored = 0
    for header in shards:
        for tensor in header.tensors:
            share[tensor.dtype] += tensor.elements
            stored += tensor.bytes
            if tensor.name.endswith("_packed"):
                packed += tensor.bytes * 8
                share[tensor.dtype] -= tensor.elements
    made = _manifest(config, share, tokenizer, template, card, embeds=embeds)
    weights, activations = _quantised(config)
    if weights is None:
        return made
    # Packed numbers are no integers of 32 bits: how many there are, the config says.
    parameters = made.parameters + packed // weights
    return msgspec.structs.replace(
        made,
        parameters=parameters,
        quantisation=f"W{weights}A{activations or 16}",
        bits_per_weight=round(stored * 8 / parameters, 2) if parameters else 0.0,
    )


def _quantised(config: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return the bits of weights and activations, where compressed-tensors tells them."""
    told = config.get("quantization_config")
    if not isinstance(told, dict) or told.get("quant_method") != "compressed-tensors":
        return None, None
    groups = told.get("config_groups")
    if not isinstance(groups, dict):
        return None, None
    group = next((each for each in groups.values() if isinstance(each, dict)), {})
    found = [
        each.get("num_bits") if isinstance(each, dict) else None
        for each in (group.get("weights"), group.get("input_activations"))
    ]
    weights, activations = [n if isinstance(n, int) and 0 < n <= 32 else None for n in found]
    return weights, activations


def describe_onnx(
    config: Mapping[str, Any],
    graph: Graph,
    tokenizer: Tokenizer | None,
    card: Mapping[str, Any],
) -> Manifest:
    """Return the manifest of an ONNX model: one that turns texts into vectors."""
    if not {"input_ids"} <= set(graph.inputs):
        raise Invalid(
            "invalid.onnx",
            f"cannot use this ONNX model: its inputs are {', '.join(graph.inputs[:5])!r:.100}; "
            "only models of texts are taken, which have input_ids",
        )
    share = Counter(graph.types)
    return _manifest({"model_type": "onnx", **config}, share, tokenizer, None, card, embeds=True)


def describe_adapter(
    config: Mapping[str, Any], header: Header, card: Mapping[str, Any]
) -> Manifest:
    """Return the manifest of a LoRA adapter as PEFT writes it."""
    method = str(config.get("peft_type", "")).lower()
    if method != "lora":
        raise Invalid(
            "invalid.adapter", f"cannot use this adapter: peft_type {method!r:.40} is not LORA"
        )
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise Invalid(
            "invalid.adapter", "cannot use this adapter: it does not say what model it is for"
        )
    targets = config.get("target_modules")
    share: Counter[str] = Counter()
    for tensor in header.tensors:
        share[tensor.dtype] += tensor.elements
    kind = str(config.get("task_type") or "")
    made = _manifest(
        {"model_type": "lora"}, share, None, None, card, embeds=kind == "FEATURE_EXTRACTION"
    )
    alpha = config.get("lora_alpha")
    adapter = Adapter(
        method=method,
        rank=_count(config, "r"),
        alpha=float(alpha) if isinstance(alpha, (int, float)) else None,
        targets=tuple(sorted(map(str, targets))) if isinstance(targets, list) else (),
    )
    bases = tuple(dict.fromkeys((base, *made.base_models)))
    return msgspec.structs.replace(made, adapter=adapter, base_models=bases)


def _manifest(
    config: Mapping[str, Any],
    share: Counter[str],
    tokenizer: Tokenizer | None,
    template: str | None,
    card: Mapping[str, Any],
    *,
    embeds: bool,
) -> Manifest:
    architecture = config.get("model_type")
    if not isinstance(architecture, str) or not 0 < len(architecture) <= 64:
        raise Invalid(
            "invalid.config",
            "cannot use this model: config.json names no model_type",
            param="source",
        )
    inner = config.get("text_config")
    numbers = inner if isinstance(inner, dict) else config
    heads = _count(numbers, "num_attention_heads")
    width = _count(numbers, "hidden_size")
    head = _count(numbers, "head_dim") or (width // heads if width and heads else None)
    parameters = share.total()
    bits = sum(DTYPES.get(dtype, 8) * count for dtype, count in share.items())
    name = config.get("_name_or_path")
    return Manifest(
        architecture=architecture,
        task=_task(config, architecture, template, embeds=embeds),
        name=name if isinstance(name, str) and name else None,
        parameters=parameters,
        context=_count(numbers, "max_position_embeddings"),
        layers=_count(numbers, "num_hidden_layers"),
        width=width,
        heads=heads,
        kv_heads=_count(numbers, "num_key_value_heads") or heads,
        head_key=head,
        head_value=head,
        quantisation=share.most_common(1)[0][0] if share else "none",
        bits_per_weight=round(bits / parameters, 2) if parameters else 0.0,
        tokenizer=tokenizer,
        chat_template=template,
        licence=together(card.get("license_name"), card.get("license")),
        base_models=tuple(_texts(card.get("base_model")))[:16],
    )


def _task(
    config: Mapping[str, Any], architecture: str, template: str | None, *, embeds: bool
) -> Task:
    named = [name for name in config.get("architectures") or () if isinstance(name, str)]
    if any(name.endswith("ForSequenceClassification") for name in named):
        return "rerank"
    if embeds or architecture in EMBEDS:
        return "embedding"
    return "chat" if template else "completion"


def _count(config: Mapping[str, Any], name: str) -> int | None:
    value = config.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 < value < 1 << 40 else None


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [each for each in values if isinstance(each, str) and 0 < len(each) <= 200]
