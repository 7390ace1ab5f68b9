"""Adapters and their bases: which one, whether it fits, on what else it may be run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from freehold.errors import Invalid, Missing
from freehold.models.adapter import carriers, check_fit, settle_base
from freehold.models.gguf import Header, read_header
from freehold.models.manifest import describe
from freehold.models.registry import Draft, Version
from freehold.store.versions import Artifact, Dependency
from tests.make_gguf import gguf
from tests.unit.models.test_registry import Shelf

LORA = {
    "general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora",
    "adapter.lora.alpha": 16.0,
}  # fmt: skip


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    made = Shelf(tmp_path)
    yield made
    made.database.close()


def header(
    folder: Path, shapes: dict[str, list[int]], fields: dict[str, object] | None = None
) -> Header:
    """Return the header of a file with these tensors (F32), innermost size first."""
    tensors, at = [], 0
    for name, shape in shapes.items():
        tensors.append((name, shape, 0, at))
        at += -(-shape[0] * shape[1] * 4 // 32) * 32
    file = folder / "x.gguf"
    file.write_bytes(gguf(fields or LORA, tensors, b"\0" * at))
    return read_header(file)


def adapter(shelf: Shelf, *dependencies: Dependency) -> Version:
    shapes = {"w.weight.lora_a": [8, 2], "w.weight.lora_b": [2, 4]}
    found = header(shelf.folder, shapes)
    digest, size = shelf.blobs.add(shelf.folder / "x.gguf", move=True)
    draft = Draft(
        model="tone", manifest=describe(found), format="gguf", licence=None, notice=None,
        artifacts=(Artifact(name="model.gguf", digest=digest, bytes=size),),
        source="s", resolved="r", dependencies=dependencies,
    )  # fmt: skip
    return shelf.registry.register(draft, 1.0, "me")[0]


def based(version: Version) -> Dependency:
    row = version.row
    return Dependency(kind="base", target=row.model, target_number=row.number, digest=row.digest)


def made_from(version: Version) -> Dependency:
    row = version.row
    return Dependency(kind="parent", target=row.model, target_number=row.number, digest=row.digest)


@pytest.mark.parametrize(
    ("shapes", "architecture", "words"),
    [
        ({"w.lora_a": [8, 2], "w.lora_b": [2, 4]}, "llama", None),
        ({"w.lora_a": [8, 2], "w.lora_b": [2, 4]}, "qwen2", "architecture"),
        ({"v.lora_a": [8, 2], "v.lora_b": [2, 4]}, "llama", "does not have"),
        ({"w.lora_a": [4, 2], "w.lora_b": [2, 8]}, "llama", "4 x 8"),
        ({"w.lora_a": [8, 2], "w.lora_b": [3, 4]}, "llama", "go together"),
        ({"w.lora_a": [8, 2]}, "llama", "go together"),
        ({"w.weight": [8, 2]}, "llama", "not half"),
    ],
)
def test_every_matrix_of_an_adapter_must_have_one_of_the_base(
    shapes: dict[str, list[int]], architecture: str, words: str | None, tmp_path: Path
) -> None:
    base = header(tmp_path, {"w": [8, 4]}, {"general.architecture": "llama"})
    found = header(tmp_path, shapes, {**LORA, "general.architecture": architecture})
    if words is None:
        check_fit(found, base)
        return
    with pytest.raises(Invalid, match=words):
        check_fit(found, base)


def test_a_base_is_one_version_named_or_known(shelf: Shelf) -> None:
    shelf.add("some-base", "one")
    other = shelf.add("some-base", "two")
    manifest = adapter(shelf).manifest
    named = Dependency(kind="base", target="some-base:2")
    assert settle_base(manifest, [named], shelf.registry) == (based(other),)
    with pytest.raises(Invalid, match="--base NAME"):
        settle_base(manifest, [], shelf.registry)
    with pytest.raises(Missing):
        settle_base(manifest, [Dependency(kind="base", target="gone")], shelf.registry)
    with pytest.raises(Invalid, match="an adapter itself"):
        settle_base(manifest, [Dependency(kind="base", target="tone")], shelf.registry)


def test_a_base_is_known_by_the_name_the_adapter_has_for_it(shelf: Shelf) -> None:
    import msgspec

    shelf.add("some-base", "one")
    manifest = msgspec.structs.replace(adapter(shelf).manifest, base_models=("someone/Some-Base",))
    found = settle_base(manifest, [], shelf.registry)
    assert (found[0].target, found[0].target_number) == ("some-base", 1)


def test_what_was_made_of_the_base_carries_an_adapter_too_and_production_is_preferred(
    shelf: Shelf,
) -> None:
    base = shelf.add("m", "one")
    shelf.add("m", "stranger")
    shelf.add("m", "compressed", made_from(base))
    tone = adapter(shelf, based(base))
    assert [v.row.number for v in carriers(tone, shelf.registry)] == [1, 3]
    shelf.registry.promote("m", "production", 3, 2.0, "me")
    assert [v.row.number for v in carriers(tone, shelf.registry)] == [3, 1]


def test_an_adapter_without_its_base_is_refused(shelf: Shelf) -> None:
    with pytest.raises(Missing, match="without a base"):
        carriers(adapter(shelf), shelf.registry)
    gone = Dependency(kind="base", target="m", target_number=1, digest="0" * 64)
    shelf.registry.remove_model("tone")
    tone = adapter(shelf, gone)
    with pytest.raises(Missing, match="needs its base m:1"):
        carriers(tone, shelf.registry)
    shelf.add("m", "one")
    with pytest.raises(Invalid, match="other bytes"):
        carriers(tone, shelf.registry)
