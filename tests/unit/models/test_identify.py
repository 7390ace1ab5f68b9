"""What files make: a model in one of the formats we know, an adapter, or nothing."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from freehold.builtin.source_folder import Folder
from freehold.errors import Invalid
from freehold.models.identify import Identified, digest_of, identify
from freehold.models.manifest import Adapter
from freehold.models.source import Origin
from freehold.settings import Sources
from freehold.store.versions import Artifact
from tests.make_gguf import gguf
from tests.make_onnx import onnx, tensor
from tests.make_safetensors import CONFIG, folder, safetensors
from tests.templates import TEMPLATES

TEXTS = {"tokenizer_config__json": {"tokenizer_class": "T", "chat_template": TEMPLATES["smol"]}}


def _files(place: Path) -> dict[str, Path]:
    origin = Origin(source="folder", location=str(place))
    return dict(Folder(Sources()).fetch(origin, place, lambda *_: None).files)


def _of(tmp_path: Path, **files: Any) -> Identified:
    return identify(_files(folder(tmp_path / "m", **files)))


def test_a_folder_of_safetensors(tmp_path: Path) -> None:
    card = "---\nlicense: other\nlicense_name: llama3.1\nbase_model: [org/base]\n---\n# M\n"
    found = _of(tmp_path, README__md=card, **TEXTS)
    manifest = found.manifest
    assert (found.format, found.main) == ("safetensors", "model.safetensors")
    assert (manifest.architecture, manifest.task, manifest.parameters) == ("llama", "chat", 256)
    assert (manifest.quantisation, manifest.bits_per_weight) == ("F32", 32.0)
    assert (manifest.context, manifest.layers, manifest.width) == (128, 1, 8)
    assert (manifest.heads, manifest.kv_heads, manifest.head_key) == (2, 1, 4)
    assert manifest.chat_template == TEMPLATES["smol"]
    assert (manifest.licence, manifest.base_models) == ("llama3.1", ("org/base",))
    assert manifest.tokenizer is not None
    assert (manifest.tokenizer.model, manifest.tokenizer.tokens) == ("T", 32)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\x80\x04\x95" + bytes(64), "a Python pickle"),
        (b"PK\x03\x04" + bytes(64), "a zip archive"),
    ],
)
def test_weights_that_are_something_else_are_called_that(
    tmp_path: Path, data: bytes, says: str
) -> None:
    """Also where nothing lies beside them, which would be said next."""
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(Invalid, match=says):
        identify({"model.safetensors": tmp_path / "model.safetensors"})


@pytest.mark.parametrize(
    ("files", "template"),
    [
        ({"chat_template__jinja": "{{ 1 }}", **TEXTS}, "{{ 1 }}"),
        ({"chat_template__json": {"chat_template": "{{ 2 }}"}}, "{{ 2 }}"),
        ({"tokenizer_config__json": {"chat_template": [
            {"name": "rag", "template": "{{ 3 }}"}, {"name": "default", "template": "{{ 4 }}"}]}},
         "{{ 4 }}"),
        ({}, None),
    ],
)  # fmt: skip
def test_where_the_chat_template_is(
    tmp_path: Path, files: dict[str, Any], template: str | None
) -> None:
    assert _of(tmp_path, **files).manifest.chat_template == template


@pytest.mark.parametrize(
    ("config", "task"),
    [
        ({"model_type": "bert"}, "embedding"),
        ({"architectures": ["BertForSequenceClassification"]}, "rerank"),
        ({}, "completion"),
        ({"model_type": "gemma3", "text_config": {"hidden_size": 16}}, "completion"),
    ],
)
def test_tasks(tmp_path: Path, config: dict[str, Any], task: str) -> None:
    assert _of(tmp_path, config__json={**CONFIG, **config}).manifest.task == task


def test_pooling_makes_it_one_for_embeddings(tmp_path: Path) -> None:
    assert _of(tmp_path, modules__json="[]").manifest.task == "embedding"


def test_a_licence_file_is_read_where_the_card_is_silent(tmp_path: Path) -> None:
    text = "Apache License\n  Version 2.0, January 2004\n"
    assert _of(tmp_path, LICENSE=text).manifest.licence == "apache-2.0"


def _shards(place: Path, index: dict[str, str]) -> Path:
    folder(place, model__safetensors=None)
    for name in set(index.values()):
        held = {tensor: ("U8", [2]) for tensor, shard in index.items() if shard == name}
        (place / name).write_bytes(safetensors(held))
    document = {"metadata": {}, "weight_map": index}
    (place / "model.safetensors.index.json").write_text(json.dumps(document))
    return place


INDEX = {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}


def test_shards(tmp_path: Path) -> None:
    found = identify(_files(_shards(tmp_path / "m", INDEX)))
    assert (found.manifest.parameters, found.main) == (4, "model-1-of-2.safetensors")


def test_a_shard_too_few_or_too_many(tmp_path: Path) -> None:
    place = _shards(tmp_path / "m", INDEX)
    (place / "more.safetensors").write_bytes(safetensors())
    with pytest.raises(Invalid, match="does not name 'more"):
        identify(_files(place))
    (place / "more.safetensors").unlink()
    (place / INDEX["b"]).unlink()
    with pytest.raises(Invalid, match="which is not there"):
        identify(_files(place))
    (place / "model.safetensors.index.json").unlink()
    (place / "b.safetensors").write_bytes(safetensors())
    with pytest.raises(Invalid, match="which of them are the model"):
        identify(_files(place))


LORA = {"peft_type": "LORA", "base_model_name_or_path": "org/base", "r": 8, "lora_alpha": 16,
        "target_modules": ["q_proj", "v_proj"]}  # fmt: skip


def _adapter(place: Path, config: dict[str, Any]) -> Path:
    place.mkdir()
    (place / "adapter_model.safetensors").write_bytes(safetensors({"l.lora_A": ("F16", [8, 2])}))
    (place / "adapter_config.json").write_text(json.dumps(config))
    return place


def test_an_adapter_in_safetensors(tmp_path: Path) -> None:
    found = identify(_files(_adapter(tmp_path / "m", LORA))).manifest
    assert found.adapter == Adapter(method="lora", rank=8, alpha=16.0, targets=("q_proj", "v_proj"))
    assert found.base_models == ("org/base",)


@pytest.mark.parametrize(
    "change",
    [{"peft_type": "IA3"}, {"base_model_name_or_path": None}, {"base_model_name_or_path": ""}],
)
def test_an_adapter_that_is_none(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="cannot use this adapter"):
        identify(_files(_adapter(tmp_path / "m", LORA | change)))


def test_an_adapter_in_gguf(tmp_path: Path) -> None:
    fields = {
        "general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora",
        "adapter.lora.alpha": 32.0, "general.base_model.count": 1,
        "general.base_model.0.name": "Base",
    }  # fmt: skip
    tensors = [("blk.0.attn_q.weight.lora_a", [8, 4], 0, 0)]
    (tmp_path / "a.gguf").write_bytes(gguf(fields, tensors, bytes(128)))
    found = identify(_files(tmp_path / "a.gguf")).manifest
    assert found.adapter == Adapter(method="lora", rank=4, alpha=32.0, targets=("attn_q",))
    assert found.base_models == ("Base",)


def test_an_onnx_model_and_its_weights(tmp_path: Path) -> None:
    place = tmp_path / "m"
    place.mkdir()
    (place / "model.onnx").write_bytes(onnx(tensors=(tensor("w", external="model.onnx_data"),)))
    with pytest.raises(Invalid, match="are not among its files"):
        identify(_files(place))
    (place / "model.onnx_data").write_bytes(bytes(16))
    (place / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 384}))
    found = identify(_files(place))
    assert (found.format, found.manifest.task) == ("onnx", "embedding")
    assert found.companions == {"model.onnx_data"}
    assert (found.manifest.architecture, found.manifest.width) == ("bert", 384)


def test_a_graph_of_pictures_is_none_of_ours(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(onnx(inputs=("pixel_values",)))
    with pytest.raises(Invalid, match="only models of texts"):
        identify(_files(tmp_path / "model.onnx"))


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"config__json": None}, "there is no config.json beside the weights"),
        ({"config__json": "[]"}, "no JSON object"),
        ({"config__json": '{"model_type": 1}'}, "names no model_type"),
        ({"config__json": '{"model_type": "a", "model_type": "b"}'}, "twice"),
        ({"model__safetensors": safetensors({})}, "holds no tensors"),
        ({"model__safetensors": b"x" * 20}, "its header would have"),
    ],
)
def test_folders_that_are_no_model(tmp_path: Path, files: dict[str, Any], says: str) -> None:
    with pytest.raises(Invalid, match=says):
        _of(tmp_path, **files)


def test_what_lies_about_is_left_there(tmp_path: Path) -> None:
    place = folder(tmp_path / "m", picture__png=b"\x89PNG")
    (place / ".git").mkdir()
    (place / ".git" / "config").write_text("x")
    (place / "sub").mkdir()
    (place / "sub" / "config.json").write_text("{}")
    names = set(_files(place))
    assert "sub/config.json" in names
    assert not names & {"picture.png", ".git/config"}


def test_links_within_a_folder_and_a_hub_cache_are_followed(tmp_path: Path) -> None:
    cache = tmp_path / "models--org--m"
    (cache / "blobs").mkdir(parents=True)
    place = folder(cache / "snapshots" / "abc")
    (cache / "blobs" / "1").write_bytes((place / "model.safetensors").read_bytes())
    (place / "model.safetensors").unlink()
    (place / "model.safetensors").symlink_to("../../blobs/1")
    assert identify(_files(place)).manifest.parameters == 256
    outside = tmp_path / "secret"
    outside.write_text("secret")
    (place / "README.md").symlink_to(outside)
    with pytest.raises(Invalid, match="link to outside"):
        _files(place)


def test_the_digest_of_several_files_is_that_of_what_sha256sum_prints() -> None:
    one = Artifact(name="b", digest="1" * 64, bytes=1)
    two = Artifact(name="a", digest="2" * 64, bytes=1)
    printed = f"{'2' * 64}  a\n{'1' * 64}  b\n"
    assert digest_of((one, two), "safetensors") == hashlib.sha256(printed.encode()).hexdigest()
    assert digest_of((one, two), "gguf") == "1" * 64
