"""What is refused, with a reason, before any work; what is planned."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from freehold.errors import Invalid
from freehold.models.convert.config import Config
from freehold.models.convert.lora import Base, plan_adapter
from freehold.models.convert.plan import plan
from freehold.models.convert.recipes import rope_factors
from tests.make_checkpoint import HEAD, HIDDEN, LAYERS, Checkpoint, Lora, decoder, encoder

Change = Callable[[Checkpoint], object]
QWEN = Base(arch="qwen2", layers=LAYERS, head=HEAD)


def _set(**fields: Any) -> Change:
    return lambda made: made.config.update(fields)


def _drop(name: str) -> Change:
    return lambda made: made.tensors.pop(name)


def _resize(name: str, *shape: int) -> Change:
    return lambda made: made.matrix(name, *shape)


@pytest.mark.parametrize(
    ("family", "change", "words"),
    [
        ("llama3", _set(architectures=["FancyForCausalLM"]), "FancyForCausalLM"),
        ("llama3", _set(architectures=["A", "B"]), "one architecture"),
        ("llama3", _set(quantization_config={"bits": 4}), "quantised already"),
        ("llama3", _set(hidden_act="gelu"), "hidden_act"),
        ("llama3", _set(hidden_size=None), "hidden_size"),
        ("llama3", _set(num_hidden_layers=True), "num_hidden_layers"),
        ("llama3", _set(num_hidden_layers=4), "lack"),
        ("llama3", _set(num_attention_heads=8, head_dim=16), "rows"),
        ("llama3", _set(vocab_size=77), "embeddings"),
        ("llama3", _set(rope_scaling={"rope_type": "longrope", "factor": 2.0}), "longrope"),
        ("llama3", _set(rope_scaling={"rope_type": "llama3", "factor": 8.0}), "incomplete"),
        ("llama3", _drop("model.norm.weight"), "output_norm"),
        ("llama3", _drop("lm_head.weight"), "lm_head"),
        ("llama3", _drop("model.layers.1.mlp.up_proj.weight"), "blk.1.ffn_up"),
        ("llama3", _resize("model.layers.0.extra.weight", 4, 4), "no place"),
        ("llama3", _resize("model.layers.2.self_attn.q_proj.bias", 64), "in 3 layers"),
        ("smollm3", _set(no_rope_layers=[1, 1, 0]), "no_rope_layers"),
        ("qwen2", _set(use_sliding_window=True), "use_sliding_window"),
        ("gemma2", _set(query_pre_attn_scalar=224), "query_pre_attn_scalar"),
        ("gemma3", _set(layer_types=["full_attention"] * LAYERS), "layer_types"),
        ("gemma3", _set(rope_local_base_freq=500.0), "rope_local_base_freq"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(
    family: str, change: Change, words: str, tmp_path: Path
) -> None:
    made = decoder(family)
    change(made)
    with pytest.raises(Invalid, match=words):
        plan(made.save(tmp_path), None, "m")


def test_a_tokenizer_that_splits_otherwise_is_refused(tmp_path: Path) -> None:
    made = decoder("llama3")
    assert made.tokenizer is not None
    split = made.tokenizer["pre_tokenizer"]["pretokenizers"][0]
    split["pattern"] = {"Regex": r"\w+|\s+"}
    with pytest.raises(Invalid, match="splits text"):
        plan(made.save(tmp_path), None, "m")


def test_words_that_no_merge_makes_are_refused_where_they_would_not_be_taken_whole(
    tmp_path: Path,
) -> None:
    made = decoder("qwen2")
    assert made.tokenizer is not None
    made.tokenizer["model"]["ignore_merges"] = True  # which llama.cpp does not do for this kind
    made.tokenizer["model"]["vocab"]["unreachable"] = 480
    made.config["vocab_size"] = 481
    made.matrix("model.embed_tokens.weight", 481, HIDDEN)
    made.matrix("lm_head.weight", 481, HIDDEN)
    with pytest.raises(Invalid, match="no merge makes"):
        plan(made.save(tmp_path), None, "m")


def test_a_tokenizer_larger_than_the_weights_or_a_cased_one_is_refused(tmp_path: Path) -> None:
    made = decoder("llama3")
    assert made.tokenizer is not None
    made.tokenizer["model"]["vocab"]["ab"] = 480
    with pytest.raises(Invalid, match="only 480"):
        plan(made.save(tmp_path / "a"), None, "m")
    cased = encoder()
    assert cased.tokenizer is not None
    cased.tokenizer["normalizer"]["lowercase"] = False
    with pytest.raises(Invalid, match="capitals"):
        plan(cased.save(tmp_path / "b"), None, "m")


@pytest.mark.parametrize("missing", ["tokenizer.json", "config.json"])
def test_what_is_missing_is_named(missing: str, tmp_path: Path) -> None:
    folder = decoder("llama3").save(tmp_path)
    (folder / missing).unlink()
    with pytest.raises(Invalid, match=missing):
        plan(folder, None, "m")


def test_a_head_that_is_the_embeddings_and_what_sees_are_left_out(tmp_path: Path) -> None:
    made = decoder("smollm")
    made.matrix("lm_head.weight", made.config["vocab_size"], HIDDEN)
    names = {part.name for part in plan(made.save(tmp_path / "a"), None, "m").parts}
    assert "output.weight" not in names
    seeing = decoder("gemma3")
    seeing.config["architectures"] = ["Gemma3ForConditionalGeneration"]
    seeing.matrix("vision_tower.vision_model.encoder.weight", 4, 4)
    planned = plan(seeing.save(tmp_path / "b"), None, "m")
    assert planned.left_out == ("vision_tower.vision_model.encoder.weight",)


def test_llama_3_stretches_as_its_makers_say() -> None:
    config = decoder("llama3").config
    found = rope_factors(Config(config))
    assert found is not None
    assert (found[0], found[-1]) == (1.0, 8.0)
    assert sorted(found) == found
    assert any(1.0 < each < 8.0 for each in found)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "biases"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"alpha_pattern": {"q_proj": 2}}, "alpha_pattern"),
        ({"lora_alpha": 0}, "lora_alpha"),
        ({"peft_type": "IA3"}, "no plain LoRA"),
    ],
)
def test_adapters_of_other_kinds_are_refused(
    fields: dict[str, Any], words: str, tmp_path: Path
) -> None:
    lora = Lora(decoder("qwen2"), 1)
    lora.config |= fields
    with pytest.raises(Invalid, match=words):
        plan_adapter(lora.save(tmp_path), QWEN, None, "a")


def test_halves_of_an_adapter_must_go_together(tmp_path: Path) -> None:
    lora = Lora(decoder("qwen2"), 1)
    first = next(name for name in lora.tensors if "lora_B" in name)
    half = lora.tensors.pop(first)
    with pytest.raises(Invalid, match="together"):
        plan_adapter(lora.save(tmp_path / "a"), QWEN, None, "a")
    lora.tensors[first] = np.concatenate([half, half], axis=1)
    with pytest.raises(Invalid, match="together"):
        plan_adapter(lora.save(tmp_path / "b"), QWEN, None, "a")
    lora.tensors[first] = half
    lora.tensors["base_model.model.lm_head.lora_magnitude_vector"] = half
    with pytest.raises(Invalid, match="no place"):
        plan_adapter(lora.save(tmp_path / "c"), QWEN, None, "a")
    with pytest.raises(Invalid, match="mamba"):
        plan_adapter(lora.save(tmp_path / "d"), Base(arch="mamba", layers=2, head=4), None, "a")
