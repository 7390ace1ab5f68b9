"""What a conversion will write, decided from headers and small files: nothing is done yet."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import msgspec
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, SpecialVocab, TensorNameMap, get_tensor_name_map

from freehold.models.convert.config import Config, read_json, unfit
from freehold.models.convert.recipes import Recipe, Values, recipe, rope_factors
from freehold.models.convert.vocabulary import vocabulary
from freehold.models.convert.weights import FLOATS, Stored, stored

Kind = Literal["f32", "f16", "bf16"]
FILE_TYPES: Mapping[str, int] = MappingProxyType({"F32": 0, "F16": 1, "BF16": 32})
_BLOCK = re.compile(r"blk\.(\d+)\.(.+)")
_WHOLE = ("_norm.weight", "position_embd.weight", "token_types.weight")
"""Tensors that llama.cpp reads in 32 bit only."""
_DECODER = (
    "attn_norm.weight", "attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_output.weight",
    "ffn_norm.weight", "ffn_gate.weight", "ffn_up.weight", "ffn_down.weight",
)  # fmt: skip
_NORMS = ("post_attention_norm.weight", "post_ffw_norm.weight")
_HEADS = ("attn_q_norm.weight", "attn_k_norm.weight")
_BIASES = ("attn_q.bias", "attn_k.bias", "attn_v.bias")
_ENCODER = (
    "attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_output.weight", *_BIASES,
    "attn_output.bias", "attn_output_norm.weight", "attn_output_norm.bias", "ffn_up.weight",
    "ffn_up.bias", "ffn_down.weight", "ffn_down.bias", "layer_output_norm.weight",
    "layer_output_norm.bias",
)  # fmt: skip
_NEEDED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "qwen2": (*_DECODER, *_BIASES),
        "qwen3": (*_DECODER, *_HEADS),
        "gemma2": (*_DECODER, *_NORMS),
        "gemma3": (*_DECODER, *_NORMS, *_HEADS),
        "bert": _ENCODER,
    }
)


_POOLING: Mapping[str, int] = MappingProxyType(
    {"mean": 1, "mean_tokens": 1, "cls": 2, "cls_token": 2, "lasttoken": 3}
)


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor to be written. ``shape`` is outermost first.

    ``head`` is the width of the heads whose rows are put into llama.cpp's order, 0 for none;
    ``shift`` is added; ``values`` are its numbers where no file has them.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    source: Stored | None = None
    head: int = 0
    shift: float = 0.0
    values: tuple[float, ...] = ()

    @property
    def bytes(self) -> int:
        """How many bytes it takes."""
        product = 4 if self.kind == "F32" else 2
        for size in self.shape:
            product *= size
        return product


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All that will be in a GGUF file. ``left_out`` are tensors that llama.cpp has no use for."""

    arch: str
    values: Values
    parts: tuple[Part, ...]
    left_out: tuple[str, ...] = ()
    special: SpecialVocab | None = None


def plan(folder: Path, kind: Kind | None, name: str) -> Plan:
    """Decide what the checkpoint in a folder becomes.

    ``kind`` is what matrices are written as, as they are stored when it is None; ``Invalid`` says
    why the checkpoint cannot be converted.
    """
    config = Config(read_json(folder / "config.json"))
    chosen = recipe(config)
    numbers = chosen.numbers(config)
    tensors = stored({path.name: path for path in folder.glob("*.safetensors")})
    check_types(tensors.values())
    maps = name_map(chosen.arch, config.whole("num_hidden_layers"))
    named, left_out = _named(tensors, chosen, maps)
    _settle_head(named, chosen, config)
    _check(named, chosen, config)
    size = named["token_embd.weight"].shape[0]
    written = kind.upper() if kind else commonest(named.values())
    parts = [_part(key, tensor, chosen, config, written) for key, tensor in named.items()]
    factors = rope_factors(config) if chosen.rotates else None
    if factors is not None:
        extra = Part(name="rope_freqs.weight", shape=(len(factors),), kind="F32",
                     values=tuple(factors))  # fmt: skip
        parts.insert(0, extra)
    values: Values = {"general.type": "model", "general.name": name}
    values["general.file_type"] = FILE_TYPES[written]
    values["general.quantization_version"] = 2
    values |= {f"{chosen.arch}.{field}": value for field, value in numbers.items()}
    values |= _pooling(folder, chosen.arch)
    values |= vocabulary(folder, chosen.arch, size)
    if chosen.arch == "bert":
        values["tokenizer.ggml.token_type_count"] = config.whole("type_vocab_size", 1)
    return Plan(
        arch=chosen.arch,
        values=values,
        parts=tuple(parts),
        left_out=tuple(left_out),
        special=_special(folder, size),
    )


def name_map(arch: str, layers: int) -> TensorNameMap:
    """Return gguf's map from the tensor names of checkpoints to those of GGUF."""
    number = next(key for key, name in MODEL_ARCH_NAMES.items() if name == arch)
    return get_tensor_name_map(MODEL_ARCH(number), layers)


def _named(
    tensors: Mapping[str, Stored], chosen: Recipe, maps: TensorNameMap
) -> tuple[dict[str, Stored], list[str]]:
    """Return tensors by their GGUF names, in their order, and the names of those left out."""
    named: dict[str, Stored] = {}
    left_out = []
    for own, tensor in tensors.items():
        known = chosen.rename(own)
        if known is None:
            left_out.append(own)
            continue
        key = maps.get_name(known, try_suffixes=(".weight", ".bias"))
        if key is None:
            raise unfit(f"llama.cpp has no place for its tensor {own!r:.80}")
        if key in named:
            raise unfit(f"its tensors {named[key].name!r:.60} and {own!r:.60} are the same one")
        named[key] = tensor
    return named, left_out


def _settle_head(named: dict[str, Stored], chosen: Recipe, config: Config) -> None:
    """Leave a head out that is the same as the embeddings; miss one that should be there."""
    if chosen.arch == "bert" or chosen.shift:
        return
    tied = config.flag("tie_word_embeddings", default=chosen.arch == "smollm3")
    if tied:
        named.pop("output.weight", None)
    elif "output.weight" not in named and config.architecture.endswith("ForCausalLM"):
        raise unfit("its tensor lm_head.weight is missing")


def _check(named: Mapping[str, Stored], chosen: Recipe, config: Config) -> None:
    layers = config.whole("num_hidden_layers")
    needed = {
        f"blk.{n}.{each}" for n in range(layers) for each in _NEEDED.get(chosen.arch, _DECODER)
    }
    needed.add("token_embd.weight")
    needed.add("position_embd.weight" if chosen.arch == "bert" else "output_norm.weight")
    if missing := sorted(needed - named.keys()):
        raise unfit(f"its weights lack {len(missing)} tensors, as {missing[0]}")
    kinds = Counter(match[2] for match in map(_BLOCK.fullmatch, named) if match)
    if uneven := next((each for each, count in kinds.items() if count != layers), None):
        raise unfit(f"it has {kinds[uneven]} tensors {uneven} in {layers} layers")
    width, numbers = config.whole("hidden_size"), chosen.numbers(config)
    heads = numbers["attention.head_count"]
    kv = numbers.get("attention.head_count_kv", heads)
    assert isinstance(heads, int)
    assert isinstance(kv, int)
    head = numbers.get("attention.key_length", width // heads)
    assert isinstance(head, int)
    rows = {"attn_q": heads * head, "attn_k": kv * head, "attn_v": kv * head}
    for key, tensor in named.items():
        block = _BLOCK.fullmatch(key)
        stem = block[2].partition(".")[0] if block else ""
        if stem in rows and tensor.shape[0] != rows[stem]:
            raise unfit(f"its tensor {tensor.name!r:.80} has {tensor.shape[0]} rows, not "
                        f"{rows[stem]} as its config.json says")  # fmt: skip
    size, embedding = config.get("vocab_size"), named["token_embd.weight"].shape
    if len(embedding) != 2 or embedding[1] != width or size not in (None, embedding[0]):
        raise unfit(f"its embeddings are {embedding}, not ({size}, {width}) as config.json says")


def check_types(tensors: Iterable[Stored]) -> None:
    """Raise ``Invalid`` for tensors that are quantised or no floats."""
    for tensor in tensors:
        if tensor.type not in FLOATS and not tensor.name.endswith("position_ids"):
            raise unfit(f"its tensor {tensor.name!r:.80} is of type {tensor.type}: only F32, F16 "
                        "and BF16 are converted")  # fmt: skip


def commonest(tensors: Iterable[Stored]) -> str:
    """Return the type that most numbers are stored as."""
    share: Counter[str] = Counter()
    for tensor in tensors:
        share[tensor.type] += tensor.rows * tensor.width
    return share.most_common(1)[0][0]


def _part(key: str, tensor: Stored, chosen: Recipe, config: Config, written: str) -> Part:
    whole = len(tensor.shape) < 2 or not key.endswith(".weight") or key.endswith(_WHOLE)
    turned = (chosen.rotates and ".attn_q." in key) or (chosen.rotates and ".attn_k." in key)
    return Part(
        name=key,
        shape=tensor.shape,
        kind="F32" if whole else written,
        source=tensor,
        head=config.head if turned else 0,
        shift=chosen.shift if key.endswith("norm.weight") else 0.0,
    )


def _pooling(folder: Path, arch: str) -> Values:
    """Return how an embedding model makes one vector of many, where it says so."""
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return {}
    modes = {
        "pooling_mode_mean_tokens": 1,
        "pooling_mode_cls_token": 2,
        "pooling_mode_lasttoken": 3,
    }
    document = read_json(path)
    named = {"mean": 1, "cls": 2, "lasttoken": 3}.get(str(document.get("pooling_mode")))
    number = next((n for mode, n in modes.items() if document.get(mode) is True), named)
    if number is None:
        raise unfit("it pools neither by the mean nor by the first or last token")
    return {f"{arch}.pooling_type": number}


def _special(folder: Path, size: int) -> SpecialVocab:
    try:
        return SpecialVocab(folder, n_vocab=size)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise unfit(f"its special tokens are not as they should be: {error!r:.160}") from error
