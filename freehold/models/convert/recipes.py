"""What each architecture is called in GGUF, which numbers it needs, how its tensors differ.

A field that llama.cpp would compute otherwise is refused here, before any work.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import msgspec

from freehold.models.convert.config import Config, unfit

Value = int | float | bool | str | list[str] | list[int] | list[float]
Values = dict[str, Value]


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """How to convert one architecture.

    ``numbers`` returns the architecture's GGUF fields, without its name before them. ``rename``
    turns a tensor's name into the one gguf's maps know, None where the model needs it not.
    ``rotates``: the rows of queries and keys are stored in another order. ``shift`` is added to
    the weights of norms.
    """

    arch: str
    numbers: Callable[[Config], Values]
    rename: Callable[[str], str | None]
    rotates: bool = False
    shift: float = 0.0


def recipe(config: Config) -> Recipe:
    """Return the recipe of a checkpoint; ``Invalid`` when there is none."""
    name = config.architecture
    if name not in RECIPES:
        raise unfit(f"its architecture {name!r:.60} is not one of {', '.join(RECIPES)}")
    if config.get("quantization_config") is not None:
        raise unfit("its weights are quantised already: take the original in 16 bit")
    return RECIPES[name]


def rope_factors(config: Config) -> list[float] | None:
    """Return by how much Llama 3 divides each frequency, None for others."""
    rope = config.rope()
    if rope["rope_type"] != "llama3":
        return None
    theta, width = float(rope.get("rope_theta", 10000.0)), config.head
    try:
        factor, low, high, before = (
            float(rope[name])
            for name in (
                "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"
            )
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise unfit("its config.json has an incomplete rope_scaling of type llama3") from error
    found = []
    for index in range(0, width, 2):
        length = 2 * math.pi * theta ** (index / width)
        if length < before / high:
            found.append(1.0)
        elif length > before / low:
            found.append(factor)
        else:
            smooth = (before / length - low) / (high - low)
            found.append(1 / ((1 - smooth) / factor + smooth))
    return found


def _common(config: Config) -> Values:
    """Return what all decoders have."""
    values: Values = {
        "block_count": config.whole("num_hidden_layers"),
        "context_length": config.whole("max_position_embeddings"),
        "embedding_length": config.whole("hidden_size"),
        "feed_forward_length": config.whole("intermediate_size"),
        "attention.head_count": config.heads,
        "attention.head_count_kv": config.kv_heads,
        "attention.layer_norm_rms_epsilon": config.real("rms_norm_eps"),
    }
    if config.has("head_dim"):
        values["attention.key_length"] = values["attention.value_length"] = config.head
    return values


def _rope(config: Config, *known: str) -> Values:
    """Return how positions are turned and stretched."""
    rope, values = config.rope(), Values()
    kind, theta = rope["rope_type"], rope.get("rope_theta", 10000.0)
    if not isinstance(theta, int | float):
        raise unfit(f"its config.json has rope_theta = {theta!r:.40}")
    values["rope.freq_base"] = float(theta)
    if kind in ("default", *known):
        return values
    factor = rope.get("factor")
    if kind not in ("linear", "yarn") or not isinstance(factor, int | float):
        raise unfit(f"its positions are stretched by {kind!r:.40}, which is not converted")
    values["rope.scaling.type"], values["rope.scaling.factor"] = kind, float(factor)
    if kind == "yarn":
        trained = rope.get("original_max_position_embeddings")
        if not isinstance(trained, int):
            raise unfit("its rope_scaling lacks original_max_position_embeddings")
        values["rope.scaling.original_context_length"] = trained
        for field, name in _YARN.items():
            if isinstance(rope.get(field), int | float):
                values[f"rope.scaling.{name}"] = float(rope[field])
    return values


_YARN = MappingProxyType(
    {
        "extrapolation_factor": "yarn_ext_factor",
        "attention_factor": "yarn_attn_factor",
        "beta_fast": "yarn_beta_fast",
        "beta_slow": "yarn_beta_slow",
    }
)


def _llama(config: Config) -> Values:
    config.expect("hidden_act", "silu")
    config.expect("partial_rotary_factor", 1, 1.0)
    config.expect("sliding_window")
    values = _common(config) | _rope(config, "llama3")
    return values | {
        "vocab_size": config.whole("vocab_size"),
        "rope.dimension_count": config.head,
    }


def _smollm3(config: Config) -> Values:
    layers = config.whole("num_hidden_layers")
    turned = config.get("no_rope_layers")
    if turned is not None and turned != [int((n + 1) % 4 != 0) for n in range(layers)]:
        raise unfit("its no_rope_layers are not every fourth, which is all that llama.cpp knows")
    return _llama(config)


def _qwen2(config: Config) -> Values:
    config.expect("hidden_act", "silu")
    config.expect("use_sliding_window", False)
    return _common(config) | _rope(config)


def _gemma2(config: Config) -> Values:
    config.expect("hidden_activation", "gelu_pytorch_tanh")
    _scale(config, 46)
    width = config.whole("head_dim", 256)
    return {
        **_common(config),
        **_rope(config),
        "attention.key_length": width,
        "attention.value_length": width,
        "attn_logit_softcapping": config.real("attn_logit_softcapping"),
        "final_logit_softcapping": config.real("final_logit_softcapping"),
        "attention.sliding_window": config.whole("sliding_window"),
    }


def _gemma3(config: Config) -> Values:
    config.expect("hidden_activation", "gelu_pytorch_tanh")
    config.expect("attn_logit_softcapping")
    config.expect("use_bidirectional_attention", False)
    config.expect("sliding_window_pattern", 6)
    config.expect("rope_local_base_freq", 10000, 10000.0)
    _scale(config, 62)
    layers = config.whole("num_hidden_layers")
    kinds = ["sliding_attention" if (n + 1) % 6 else "full_attention" for n in range(layers)]
    config.expect("layer_types", kinds)
    rope = _rope(config)
    if "rope_theta" not in config.rope():
        rope["rope.freq_base"] = 1_000_000.0
    width = config.whole("head_dim", 256)
    values: Values = {
        "block_count": layers,
        "context_length": config.whole("max_position_embeddings", 131072),
        "embedding_length": config.whole("hidden_size"),
        "feed_forward_length": config.whole("intermediate_size"),
        "attention.head_count": config.whole("num_attention_heads", 8),
        "attention.head_count_kv": config.whole("num_key_value_heads", 4),
        "attention.layer_norm_rms_epsilon": config.real("rms_norm_eps", 1e-6),
        "attention.key_length": width,
        "attention.value_length": width,
        "attention.sliding_window": config.whole("sliding_window"),
    }
    values["rope.freq_base_swa"] = 10000.0
    if config.has("final_logit_softcapping"):
        values["final_logit_softcapping"] = config.real("final_logit_softcapping")
    return values | rope


def _scale(config: Config, largest: int) -> None:
    """Refuse another scale of attention than the one that llama.cpp knows by the layers."""
    if not config.has("query_pre_attn_scalar"):
        return
    width = config.whole("head_dim", 256)
    if config.whole("num_hidden_layers") == largest:
        width = config.whole("hidden_size") // config.whole("num_attention_heads", 8)
    config.expect("query_pre_attn_scalar", width)


def _bert(config: Config) -> Values:
    config.expect("hidden_act", "gelu")
    config.expect("position_embedding_type", "absolute")
    config.expect("is_decoder", False)
    return {
        "block_count": config.whole("num_hidden_layers"),
        "context_length": config.whole("max_position_embeddings"),
        "embedding_length": config.whole("hidden_size"),
        "feed_forward_length": config.whole("intermediate_size"),
        "attention.head_count": config.heads,
        "attention.layer_norm_epsilon": config.real("layer_norm_eps", 1e-12),
        "attention.causal": False,
    }


_IDLE = (".rotary_emb.inv_freq", ".attention.masked_bias", ".attention.bias")


def _decoder(name: str) -> str | None:
    """Return a decoder's tensor name; some were saved without their head, from within."""
    if name.endswith(_IDLE):
        return None
    return name if name.startswith(("model.", "lm_head.")) else f"model.{name}"


def _text_of_gemma(name: str) -> str | None:
    """Return the name of a tensor of the text model; what sees is left out."""
    if any(part in name for part in ("vision_tower.", "multi_modal_projector.")):
        return None
    name = name.replace("model.language_model.", "model.").removeprefix("language_model.")
    return None if name.startswith("lm_head.") else _decoder(name)


def _encoder(name: str) -> str | None:
    """Return the name of an encoder's tensor; heads for other tasks are left out."""
    name = name.removeprefix("bert.")
    if name.startswith(("pooler.", "cls.", "classifier.")) or name == "embeddings.position_ids":
        return None
    return name.replace(".gamma", ".weight").replace(".beta", ".bias")


_LLAMA = Recipe(arch="llama", numbers=_llama, rename=_decoder, rotates=True)
_SMOLLM3 = Recipe(arch="smollm3", numbers=_smollm3, rename=_decoder, rotates=True)
_QWEN2 = Recipe(arch="qwen2", numbers=_qwen2, rename=_decoder)
_QWEN3 = Recipe(arch="qwen3", numbers=_qwen2, rename=_decoder)
_GEMMA2 = Recipe(arch="gemma2", numbers=_gemma2, rename=_text_of_gemma, shift=1.0)
_GEMMA3 = Recipe(arch="gemma3", numbers=_gemma3, rename=_text_of_gemma, shift=1.0)
_BERT = Recipe(arch="bert", numbers=_bert, rename=_encoder)

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "LlamaForCausalLM": _LLAMA,
        "MistralForCausalLM": _LLAMA,
        "SmolLM3ForCausalLM": _SMOLLM3,
        "Qwen2ForCausalLM": _QWEN2,
        "Qwen2Model": _QWEN2,
        "Qwen3ForCausalLM": _QWEN3,
        "Qwen3Model": _QWEN3,
        "Gemma2ForCausalLM": _GEMMA2,
        "Gemma3ForCausalLM": _GEMMA3,
        "Gemma3ForConditionalGeneration": _GEMMA3,
        "BertModel": _BERT,
        "BertForMaskedLM": _BERT,
    }
)
"""The class a checkpoint was saved from, to how it is converted."""
