"""Files as sound models have them, of every kind: nothing may be found in any of them."""

import json
import struct
from typing import Any

from freehold.models.safetensors import DTYPES
from tests.make_gguf import gguf
from tests.make_onnx import field, node, onnx, tensor
from tests.make_safetensors import CONFIG, header, safetensors
from tests.templates import TEMPLATES

CARD = """\
---
license: apache-2.0
language: [en, de]
base_model:
- org/base
tags:
- text-generation
pipeline_tag: text-generation
---
# A model

Use it with a pickle-free loader: `AutoModel.from_pretrained("org/model")`.

```python
import os
print(os.getcwd(), "{{ not a template }}"[2:-2])
```
"""


def benign() -> dict[str, bytes]:
    """Return names to contents; names are those that published models use, behind a number."""
    found = {**_templates(), **_weights(), **_configurations(), **_tokenizers(), **_texts()}
    assert len(found) >= 50
    return found


def _json(value: Any, **how: Any) -> bytes:
    return json.dumps(value, **how).encode()


def _templates() -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name, text in TEMPLATES.items():
        found[f"{name}/chat_template.jinja"] = text.encode()
        found[f"{name}/tokenizer_config.json"] = _json(
            {"chat_template": text, "bos_token": "<s>", "added_tokens_decoder": {"0": {}}}
        )
        found[f"{name}/model.gguf"] = gguf(
            {"general.architecture": "llama", "tokenizer.chat_template": text,
             "tokenizer.ggml.tokens": ["{{", "{%", "__", "a"]},
        )  # fmt: skip
    several = [{"name": name, "template": text} for name, text in TEMPLATES.items()]
    found["several/tokenizer_config.json"] = _json({"chat_template": several})
    found["several/chat_template.json"] = _json({"chat_template": TEMPLATES["gemma"]})
    return found


def _weights() -> dict[str, bytes]:
    found = {
        f"{dtype}/model.safetensors": safetensors({"w": (dtype, [4, 4]), "b": (dtype, [8])})
        for dtype in DTYPES
    }
    found["whole/model.gguf"] = gguf(
        {"general.architecture": "llama", "tokenizer.huggingface.json": "x" * 3_000_000}
    )
    found["meta/model.safetensors"] = safetensors(metadata={"format": "pt", "total": "{}"})
    found["empty/model.safetensors"] = safetensors({"w": ("F32", [0, 4]), "s": ("I64", [])})
    found["bare/model.safetensors"] = header({})
    found["lora/adapter_model.safetensors"] = safetensors({"l.lora_A.weight": ("F32", [2, 8])})
    found["adapter/adapter.gguf"] = gguf(
        {"general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora",
         "adapter.lora.alpha": 16.0},
        [("blk.0.attn_q.weight.lora_a", [8, 2], 0, 0)], bytes(64),
    )  # fmt: skip
    found["onnx/model.onnx"] = onnx()
    found["onnx/model_quantized.onnx"] = onnx(
        nodes=(node("DynamicQuantizeLinear"), node("SkipLayerNormalization", "com.microsoft")),
        domains=("", "com.microsoft"),
    )
    found["outside/model.onnx"] = onnx(tensors=(tensor("w", external="model.onnx_data"),))
    return found


def _configurations() -> dict[str, bytes]:
    inner = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    return {
        "llama/config.json": _json(CONFIG, indent=2),
        "qwen/config.json": _json({**CONFIG, "model_type": "qwen2", "rope_scaling": None}),
        "gemma/config.json": _json({"model_type": "gemma3", "text_config": inner}),
        "phi/config.json": _json(
            {**CONFIG, "model_type": "phi3", "auto_map": {"AutoConfig": "configuration_phi3.C"}}
        ),
        "bert/config.json": _json({**CONFIG, "model_type": "bert", "architectures": ["BertModel"]}),
        "a/generation_config.json": _json({"temperature": 0.6, "eos_token_id": [1, 2]}),
        "a/special_tokens_map.json": _json({"bos_token": {"content": "<s>", "lstrip": False}}),
        "a/preprocessor_config.json": _json({"image_mean": [0.5, 0.5, 0.5]}),
        "a/modules.json": _json([{"idx": 0, "type": "sentence_transformers.models.Transformer"}]),
        "a/model.safetensors.index.json": _json(
            {"metadata": {"total_size": 4}, "weight_map": {"w": "model-00001-of-00001.safetensors"}}
        ),
        "a/adapter_config.json": _json(
            {"peft_type": "LORA", "base_model_name_or_path": "org/base", "r": 8}
        ),
    }


def _tokenizers() -> dict[str, bytes]:
    pieces = b"".join(
        field(1, field(1, piece) + b"\x15" + struct.pack("<f", -1.5))
        for piece in ("<unk>", "▁the", "{{", "__class__")
    )
    vocabulary = {"{{": 0, "{%": 1, "__init__": 2, "Ġimport": 3, "os": 4, "}}": 5}
    large = {f"token{number}": number for number in range(200_000)}
    return {
        "a/tokenizer.json": _json(
            {"version": "1.0", "added_tokens": [{"content": "<|im_start|>"}],
             "post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {}}]},
             "model": {"type": "BPE", "vocab": vocabulary, "merges": ["Ġ i", "{ {"]}}
        ),
        "large/tokenizer.json": _json({"model": {"vocab": large | vocabulary}}),
        "a/tokenizer.model": pieces + field(2, field(1, "corpus.txt")) + field(3, field(1, "nfkc")),
        "a/merges.txt": "#version: 0.2\nĠ t\nĠ a\nc os\nsystem x\n(S R\n".encode(),
        "a/vocab.txt": b"[PAD]\n[UNK]\nthe\n##ing\n__class__\n{{\n",
        "b/vocab.txt": b"cposix\nsystem\nthe\n(S\ntR\n.\n",
        "a/vocab.json": _json(vocabulary),
        "ranked/tokenizer.model": b"IQ== 0\nIg== 1\nIw== 2\n",
        "qwen/qwen.tiktoken": b"IQ== 0\nIg== 1\n",
        "a/added_tokens.json": _json({"<|im_start|>": 151644}),
    }  # fmt: skip


def _texts() -> dict[str, bytes]:
    return {
        "a/README.md": CARD.encode(),
        "b/README.md": b"copyright\nconfig\nimport os\n(Some words) that are no pickle.\n",
        "a/LICENSE": b"Apache License\nVersion 2.0, January 2004\n",
        "a/LICENSE.txt": b"Gemma Terms of Use\n",
        "a/NOTICE": b"Gemma is provided under and subject to the Gemma Terms of Use\n",
        "a/USE_POLICY.md": b"# Acceptable use\n",
        "a/.gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n",
        "a/recipe.yaml": b"quantization:\n  modifiers: [GPTQ]\n",
    }
