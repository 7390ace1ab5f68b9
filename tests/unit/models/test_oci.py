"""References, packing and chains of redirects: what needs no server."""

import json

import pytest

from freehold.models.manifest import Manifest
from freehold.models.oci.access import read_challenge
from freehold.models.oci.manifest import digest_of, read_manifest
from freehold.models.oci.pack import pack, parameters
from freehold.models.oci.reference import Reference, read_reference
from freehold.models.registry import LaunchSettings, Version
from freehold.store.versions import Artifact, VersionRow

VERSION = Version(
    row=VersionRow(
        model="m", number=3, digest="ab" * 32, bytes=10, format="gguf", manifest="{}",
        licence="mit", notice=None, source="s", resolved="r", created=1_767_225_600.5,
        created_by="me",
    ),
    manifest=Manifest(
        architecture="qwen2", task="chat", name=None, parameters=494_032_768, context=1, layers=1,
        width=1, heads=1, kv_heads=1, head_key=1, head_value=1, quantisation="Q4_K_M",
        bits_per_weight=4.8, tokenizer=None, chat_template=None, licence=None, base_models=(),
    ),
    artifacts=(Artifact(name="model.gguf", digest="ab" * 32, bytes=10),),
    dependencies=(), settings=LaunchSettings(), settings_revision=0,
)  # fmt: skip


def test_a_version_is_always_the_same_bytes() -> None:
    first, again = pack(VERSION, "# card"), pack(VERSION, "# card")
    assert (first.manifest, first.small) == (again.manifest, again.small)
    assert pack(VERSION, None).digest != first.digest
    found = json.loads(first.manifest)
    assert found["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert read_manifest(first.manifest, first.media_type)
    described = {each["digest"]: each["size"] for each in (found["config"], *found["layers"])}
    assert described == {
        f"sha256:{'ab' * 32}": 10, **{digest: len(data) for digest, data in first.small.items()},
    }  # fmt: skip
    assert all(digest_of(data) == digest for digest, data in first.small.items())
    config = json.loads(first.small[found["config"]["digest"]])
    assert config["descriptor"]["createdAt"] == "2026-01-01T00:00:00Z"
    assert config["config"] == {
        "architecture": "transformer", "format": "gguf", "paramSize": "494M",
        "quantization": "Q4_K_M",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("count", "text"),
    [(1_000_000_000_000, "1T"), (6_700_000_000, "6.7B"), (134_515_008, "134.5M"), (8, "0K"),
     (33_000, "33K")],
)  # fmt: skip
def test_parameters_as_modelpack_writes_them(count: int, text: str) -> None:
    assert parameters(count) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("h/r", Reference(host="h", repository="r")),
        ("H.Example:5000/a/b-c_d:V.1",
         Reference(host="h.example:5000", repository="a/b-c_d", tag="V.1")),
        ("[::1]:5000/r#x/m.gguf", Reference(host="[::1]:5000", repository="r", file="x/m.gguf")),
        (f"h/r:t@sha256:{'0' * 64}",
         Reference(host="h", repository="r", tag="t", digest=f"sha256:{'0' * 64}")),
    ],
)  # fmt: skip
def test_references(text: str, expected: Reference) -> None:
    assert read_reference(text) == expected


def test_challenges() -> None:
    scheme, told = read_challenge('Bearer realm="https://a/t",service="s x", scope=pull')
    assert (scheme, told) == ("bearer", {"realm": "https://a/t", "service": "s x", "scope": "pull"})
    assert read_challenge(None) == ("", {})
    assert read_challenge('Basic realm="r"')[0] == "basic"
