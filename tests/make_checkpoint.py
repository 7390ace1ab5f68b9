"""Make small checkpoints as training leaves them: random weights, a trained tokenizer, safetensors.

Each is whole: ``config.json``, ``tokenizer.json`` (or ``tokenizer.model``), weights in one or two
files. Sizes are such that llama.cpp loads them in no time.
"""

import json
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing

HIDDEN, LAYERS, HEADS, KV, HEAD, INNER = 64, 3, 4, 2, 16, 96
VOCABULARY = 300
"""Pieces of words that an encoder knows, at most."""
TEXT = [
    "The quick brown fox jumps over the lazy dog; it isn't 1234567 metres, we've said so.",
    "Größe, Maß und Straße: über 12,5 % der Häuser wären schöner.",
    "Привет, как дела? Сегодня 25 октября, и идёт дождь.",
    "日本語の文章です。東京タワーは333メートル。",
    "def add(a, b):\n    return a + b  # comment\n\n\nclass A:\n\tpass\n",
    "مرحبا بالعالم، هذا نص عربي.  Two  spaces,   three.",
    "emoji 🚀🙂 and accents: café naïve Ångström, ¿qué tal?",
]
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_level(kind: str) -> dict[str, Any]:
    """Return a trained byte-level ``tokenizer.json``: llama3, qwen2, smollm or gpt2."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=kind == "llama3"))
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    raw = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = {"llama3": LLAMA3, "qwen2": QWEN2}.get(kind)
    if split:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(split), "isolated"), raw]
        )
    elif kind == "smollm":
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), plain]
        )
    else:
        tokenizer.pre_tokenizer = plain
    if kind == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=480, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    )  # fmt: skip
    tokenizer.train_from_iterator(TEXT, trainer)
    if kind == "llama3":
        tokenizer.post_processor = TemplateProcessing(
            single="<|endoftext|> $A", pair="<|endoftext|> $A <|endoftext|> $B",
            special_tokens=[("<|endoftext|>", 0)],
        )  # fmt: skip
    return json.loads(tokenizer.to_str())


def spaced(prefix: bool) -> dict[str, Any]:
    """Return a trained ``tokenizer.json`` of SentencePiece's kind: Llama 2 with a prefix, Gemma."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    steps: list[Any] = [normalizers.Prepend("▁")] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(
        vocab_size=600, show_progress=False,
        special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256))],
    )  # fmt: skip
    # SentencePiece merges nothing across the beginning of a word but the mark itself.
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("▁+|[^▁]+"), "isolated")
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.pre_tokenizer = None
    document = json.loads(tokenizer.to_str())
    document["added_tokens"] = [t for t in document["added_tokens"] if t["id"] < 3]
    document["post_processor"] = json.loads(
        TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)]).__getstate__()
    )
    document["decoder"] = None
    return document


def pieces(tokenizer: dict[str, Any], prefix: bool) -> bytes:
    """Return the ``tokenizer.model`` that means the same as a ``spaced`` tokenizer."""
    ranks = {"".join(m): n for n, m in reversed(list(enumerate(tokenizer["model"]["merges"])))}
    body = b""
    for text, number in sorted(tokenizer["model"]["vocab"].items(), key=lambda item: item[1]):
        kind = 2 if number == 0 else 3 if number < 3 else 6 if text.startswith("<0x") else 1
        score = -float(ranks[text]) if text in ranks else -1e6 if kind == 1 else 0.0
        inner = _field(1, text.encode()) + b"\x15" + struct.pack("<f", score)
        body += _field(1, inner + (b"\x18" + bytes([kind]) if kind != 1 else b""))
    trainer = b"\x18\x02" + b"\x98\x02\x01"  # of type BPE, and bytes for what has no piece
    return body + _field(2, trainer) + _field(3, b"\x18" + bytes([prefix]))


def wordpiece() -> dict[str, Any]:
    """Return a ``tokenizer.json`` of BERT's kind: letters, and the words that are there most.

    Always the same: what the library trains differs from run to run.
    """
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    normalizer = normalizers.BertNormalizer(lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()
    words = Counter(
        word
        for text in TEXT
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))
    )
    letters = sorted({letter for word in words for letter in word})
    ranked = sorted((word for word in words if len(word) > 1), key=lambda w: (-words[w], w))
    ends = sorted({f"##{word[-2:]}" for word in ranked if len(word) > 3})
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters), *ranked, *ends]
    vocabulary = {piece: n for n, piece in enumerate([*dict.fromkeys(pieces)][:VOCABULARY])}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens(special)
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )  # fmt: skip
    return json.loads(tokenizer.to_str())


def safetensors(tensors: dict[str, np.ndarray], kind: str = "F32") -> bytes:
    """Return a safetensors file; arrays are written as F32, F16 or BF16."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data, at = [], 0
    for name, array in tensors.items():
        data.append(encode(array, kind))
        place = [at, at + len(data[-1])]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": place}
        at = place[1]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([struct.pack("<Q", len(text)), text, *data])


def encode(array: np.ndarray, kind: str) -> bytes:
    """Return numbers as bytes of a type; BF16 is cut, not rounded."""
    if kind == "BF16":
        return (array.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return array.astype({"F32": "<f4", "F16": "<f2"}[kind]).tobytes()


class Checkpoint:
    """A checkpoint to be: fields of its config, its tensors, its other files. Change, then save."""

    def __init__(self, config: dict[str, Any], tokenizer: dict[str, Any], seed: int = 0) -> None:
        self.config = config
        self.tokenizer: dict[str, Any] | None = tokenizer
        self.tokenizer_config: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}
        self.tensors: dict[str, np.ndarray] = {}
        self._random = np.random.default_rng(seed)

    def matrix(self, name: str, *shape: int, scale: float = 0.08) -> None:
        """Add a random tensor."""
        self.tensors[name] = self._random.normal(0, scale, shape).astype(np.float32)

    def norm(self, name: str, size: int, mean: float = 1.0) -> None:
        """Add the weights of a norm."""
        self.tensors[name] = (mean + self._random.normal(0, 0.1, size)).astype(np.float32)

    def save(self, folder: Path, kind: str = "F32", *, parts: int = 1) -> Path:
        """Write the checkpoint and return its folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config))
        if self.tokenizer is not None:
            (folder / "tokenizer.json").write_text(json.dumps(self.tokenizer))
        (folder / "tokenizer_config.json").write_text(json.dumps(self.tokenizer_config))
        for name, data in self.files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(data)
        if parts == 1:
            (folder / "model.safetensors").write_bytes(safetensors(self.tensors, kind))
            return folder
        names = list(self.tensors)
        step = -(-len(names) // parts)
        index: dict[str, str] = {}
        for number in range(parts):
            file = f"model-{number + 1:05}-of-{parts:05}.safetensors"
            held = {name: self.tensors[name] for name in names[number * step :][:step]}
            index |= dict.fromkeys(held, file)
            (folder / file).write_bytes(safetensors(held, kind))
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
        return folder


def decoder(family: str, seed: int = 0) -> Checkpoint:
    """Return a random decoder: llama, llama3, smollm, smollm3, qwen2, qwen3, gemma2 or gemma3."""
    shape = {
        "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KV, "intermediate_size": INNER, "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": family in ("smollm", "smollm3", "gemma2", "gemma3"),
    }  # fmt: skip
    architecture, model = {
        "llama": ("LlamaForCausalLM", "llama"),
        "llama3": ("LlamaForCausalLM", "llama"),
        "smollm": ("LlamaForCausalLM", "llama"),
        "smollm3": ("SmolLM3ForCausalLM", "smollm3"),
        "qwen2": ("Qwen2ForCausalLM", "qwen2"),
        "qwen3": ("Qwen3ForCausalLM", "qwen3"),
        "gemma2": ("Gemma2ForCausalLM", "gemma2"),
        "gemma3": ("Gemma3ForCausalLM", "gemma3_text"),
    }[family]
    gemma = family.startswith("gemma")
    if family == "llama" or gemma:
        tokenizer = spaced(prefix=family == "llama")
        special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    else:
        tokenizer = byte_level({"llama3": "llama3", "smollm3": "llama3"}.get(family, family)
                               if family != "qwen3" else "qwen2")  # fmt: skip
        special = {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>"}
    size = len(tokenizer["model"]["vocab"])
    config = {"architectures": [architecture], "model_type": model, "vocab_size": size, **shape}
    if family == "llama3":
        config["rope_scaling"] = {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 128,
        }  # fmt: skip
    if family in ("qwen3", "gemma2", "gemma3"):
        config["head_dim"] = HEAD
    if gemma:
        config |= {"hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": HEAD,
                   "sliding_window": 32, "head_dim": HEAD}  # fmt: skip
    if family == "gemma2":
        config |= {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
    if family == "gemma3":
        config |= {"rope_local_base_freq": 10000.0, "rope_theta": 1000000.0}
    made = Checkpoint(config, tokenizer, seed)
    made.tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATE, **special,
    }  # fmt: skip
    _fill(made, family, size)
    return made


def _fill(made: Checkpoint, family: str, size: int) -> None:
    gemma = family.startswith("gemma")
    mean = 0.0 if gemma else 1.0
    made.matrix("model.embed_tokens.weight", size, HIDDEN, scale=0.5)
    for n in range(LAYERS):
        stem = f"model.layers.{n}"
        for name, rows in (("q", HEADS), ("k", KV), ("v", KV)):
            made.matrix(f"{stem}.self_attn.{name}_proj.weight", rows * HEAD, HIDDEN, scale=0.25)
            if family == "qwen2":
                made.matrix(f"{stem}.self_attn.{name}_proj.bias", rows * HEAD)
        made.matrix(f"{stem}.self_attn.o_proj.weight", HIDDEN, HEADS * HEAD)
        made.matrix(f"{stem}.mlp.gate_proj.weight", INNER, HIDDEN)
        made.matrix(f"{stem}.mlp.up_proj.weight", INNER, HIDDEN)
        made.matrix(f"{stem}.mlp.down_proj.weight", HIDDEN, INNER)
        norms = ["input_layernorm", "post_attention_layernorm"]
        if gemma:
            norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
        for name in norms:
            made.norm(f"{stem}.{name}.weight", HIDDEN, mean)
        if family in ("qwen3", "gemma3"):
            made.norm(f"{stem}.self_attn.q_norm.weight", HEAD, mean)
            made.norm(f"{stem}.self_attn.k_norm.weight", HEAD, mean)
    made.norm("model.norm.weight", HIDDEN, mean)
    if not made.config["tie_word_embeddings"]:
        made.matrix("lm_head.weight", size, HIDDEN, scale=0.5)


def encoder(seed: int = 0) -> Checkpoint:
    """Return a random BERT that pools by the mean."""
    tokenizer = wordpiece()
    size = len(tokenizer["model"]["vocab"])
    config = {
        "architectures": ["BertModel"], "model_type": "bert", "vocab_size": size,
        "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "intermediate_size": INNER, "max_position_embeddings": 128, "layer_norm_eps": 1e-12,
        "hidden_act": "gelu", "type_vocab_size": 2, "position_embedding_type": "absolute",
    }  # fmt: skip
    made = Checkpoint(config, tokenizer, seed)
    made.tokenizer_config = {
        "tokenizer_class": "BertTokenizer", "do_lower_case": True, "cls_token": "[CLS]",
        "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]",
    }  # fmt: skip
    made.files["1_Pooling/config.json"] = json.dumps({"pooling_mode_mean_tokens": True}).encode()
    made.files["modules.json"] = json.dumps(
        [{"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]
    ).encode()
    for name, rows in (("word", size), ("position", 128), ("token_type", 2)):
        made.matrix(f"embeddings.{name}_embeddings.weight", rows, HIDDEN, scale=0.5)
    _layer_norm(made, "embeddings.LayerNorm")
    for n in range(LAYERS):
        stem = f"encoder.layer.{n}"
        for part, rows, width in (
            ("attention.self.query", HIDDEN, HIDDEN), ("attention.self.key", HIDDEN, HIDDEN),
            ("attention.self.value", HIDDEN, HIDDEN), ("attention.output.dense", HIDDEN, HIDDEN),
            ("intermediate.dense", INNER, HIDDEN), ("output.dense", HIDDEN, INNER),
        ):  # fmt: skip
            made.matrix(f"{stem}.{part}.weight", rows, width)
            made.matrix(f"{stem}.{part}.bias", rows)
        _layer_norm(made, f"{stem}.attention.output.LayerNorm")
        _layer_norm(made, f"{stem}.output.LayerNorm")
    made.matrix("pooler.dense.weight", HIDDEN, HIDDEN)
    made.matrix("pooler.dense.bias", HIDDEN)
    return made


def _layer_norm(made: Checkpoint, stem: str) -> None:
    made.norm(f"{stem}.weight", HIDDEN)
    made.matrix(f"{stem}.bias", HIDDEN)


def _field(number: int, data: bytes) -> bytes:
    size, length = len(data), b""
    while size >= 0x80:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + data


class Lora:
    """A random adapter for a decoder, as PEFT saves it. Change, then save."""

    def __init__(self, made: Checkpoint, seed: int, rank: int = 4, alpha: float = 16.0) -> None:
        self.config: dict[str, Any] = {
            "peft_type": "LORA", "r": rank, "lora_alpha": alpha, "bias": "none",
            "target_modules": ["q_proj", "k_proj", "v_proj", "down_proj"], "task_type": "CAUSAL_LM",
            "base_model_name_or_path": "someone/Some-Base",
        }  # fmt: skip
        self.tensors: dict[str, np.ndarray] = {}
        random = np.random.default_rng(seed)
        for name, matrix in made.tensors.items():
            if name.split(".")[-2] in self.config["target_modules"] and name.endswith(".weight"):
                stem = f"base_model.model.{name.removesuffix('.weight')}"
                rows, width = matrix.shape
                for half, shape in (("A", (rank, width)), ("B", (rows, rank))):
                    values = random.normal(0, 0.2, shape).astype(np.float32)
                    self.tensors[f"{stem}.lora_{half}.weight"] = values

    def save(self, folder: Path, kind: str = "F32") -> Path:
        """Write the adapter and return its folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "adapter_config.json").write_text(json.dumps(self.config))
        (folder / "adapter_model.safetensors").write_bytes(safetensors(self.tensors, kind))
        return folder

    def merged(self, made: Checkpoint, scale: float = 1.0) -> Checkpoint:
        """Return the decoder as it is with the adapter in its matrices: what it should answer."""
        changed = Checkpoint(made.config, made.tokenizer or {})
        changed.tensors = dict(made.tensors)
        for name, half in self.tensors.items():
            if not name.endswith(".lora_A.weight"):
                continue
            stem = name.removesuffix(".lora_A.weight")
            amount = self.config["lora_alpha"] / len(half) * scale
            own = stem.removeprefix("base_model.model.") + ".weight"
            change = self.tensors[f"{stem}.lora_B.weight"] @ half
            changed.tensors[own] = made.tensors[own] + amount * change
        return changed
