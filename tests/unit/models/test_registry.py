"""Versions never change; aliases move and move back."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from freehold.errors import Conflict, Invalid, Missing
from freehold.models.deploy import plan
from freehold.models.deployment import Deployment
from freehold.models.gguf import read_header
from freehold.models.manifest import describe
from freehold.models.naming import check_name, suggest_name
from freehold.models.registry import Draft, LaunchSettings, Registry, Version
from freehold.settings import Runtime
from freehold.store.blobs import Blobs
from freehold.store.database import Database
from freehold.store.versions import Artifact, Dependency
from tests.make_gguf import gguf


class Shelf:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = Database(folder / "f.db")
        self.blobs = Blobs(folder / "blobs")
        self.registry = Registry(self.database, self.blobs)

    def add(self, model: str, name: str, *dependencies: Dependency) -> Version:
        file = self.folder / "m.gguf"
        file.write_bytes(gguf({"general.architecture": "llama", "general.name": name}))
        manifest = describe(read_header(file))
        digest, size = self.blobs.add(file, move=True)
        draft = Draft(
            model=model, manifest=manifest, format="gguf", licence=None, notice=None,
            artifacts=(Artifact(name="model.gguf", digest=digest, bytes=size),),
            source="s", resolved="r", dependencies=dependencies,
        )  # fmt: skip
        return self.registry.register(draft, 1.0, "me")[0]


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    made = Shelf(tmp_path)
    yield made
    made.database.close()


def test_the_first_version_is_production_and_later_ones_are_not(shelf: Shelf) -> None:
    assert shelf.add("m", "one").row.number == 1
    assert shelf.add("m", "two").row.number == 2
    assert shelf.add("m", "one").row.number == 1  # the same bytes are the same version
    assert shelf.registry.aliases("m") == {"production": 1}
    assert shelf.registry.resolve("m").row.number == 1
    assert shelf.registry.resolve("m:2").row.number == 2


def test_rollback_goes_back_and_forth(shelf: Shelf) -> None:
    for name in ("one", "two"):
        shelf.add("m", name)
    with pytest.raises(Conflict, match="never pointed elsewhere"):
        shelf.registry.roll_back("m", "production", 2.0, "me")
    shelf.registry.promote("m", "production", 2, 2.0, "me")
    assert shelf.registry.roll_back("m", "production", 3.0, "me") == 1
    assert shelf.registry.roll_back("m", "production", 4.0, "me") == 2


@pytest.mark.parametrize(
    ("reference", "says"),
    [("n", "did you mean m"), ("m:9", "there is 1"), ("m:canary", "no alias"), ("zzz", "list")],
)
def test_what_is_not_there_names_what_is(shelf: Shelf, reference: str, says: str) -> None:
    shelf.add("m", "one")
    shelf.add("mm", "two")
    with pytest.raises(Missing, match=says):
        shelf.registry.resolve(reference if reference != "n" else "mn")


@pytest.mark.parametrize("label", ["\u00b2", "9" * 5000, "\u0663", "1234567890"])
def test_an_odd_label_is_only_missing(shelf: Shelf, label: str) -> None:
    shelf.add("m", "one")
    with pytest.raises(Missing):
        shelf.registry.resolve(f"m:{label}")
    plans = plan(Deployment(name="d", model=f"m:{label}"), shelf.registry, Runtime())
    assert plans.reason


@pytest.mark.parametrize("field", ["context", "slots", "threads"])
@pytest.mark.parametrize("value", [-1, 0, 10**400])
def test_launch_settings_have_bounds(shelf: Shelf, field: str, value: int) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({field: value}, LaunchSettings)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"name": "d", "model": "m", field: value}, Deployment)


def test_removal_keeps_what_others_use(shelf: Shelf) -> None:
    one = shelf.add("a", "same")
    shelf.add("b", "same")
    shelf.add("a", "other")
    with pytest.raises(Conflict, match="move the alias first"):
        shelf.registry.remove("a", 1)
    shelf.registry.promote("a", "production", 2, 2.0, "me")
    assert shelf.registry.remove("a", 1) == 0
    assert shelf.blobs.path(one.row.digest)
    assert shelf.registry.remove_model("b") == one.row.bytes
    assert shelf.registry.names() == ["a"]
    assert shelf.add("b", "again").row.number == 2  # no number ever means other bytes


def test_lineage_follows_parents_here_and_bases_elsewhere(shelf: Shelf) -> None:
    shelf.add("base", "one", Dependency(kind="base", target="org/original"))
    parent = Dependency(kind="parent", target="base", target_number=1)
    small = shelf.add("small", "two", parent, Dependency(kind="tokenizer", target="gpt2"))
    assert shelf.registry.lineage(small) == ("base:1", "org/original")


def test_launch_settings_keep_every_revision(shelf: Shelf) -> None:
    shelf.add("m", "one")
    shelf.registry.set_launch_settings("m", 1, LaunchSettings(context=512), 2.0, "me")
    shelf.registry.set_launch_settings("m", 1, LaunchSettings(slots=2), 3.0, "you")
    version = shelf.registry.version("m", 1)
    assert (version.settings, version.settings_revision) == (LaunchSettings(slots=2), 2)
    assert [r.created_by for r in shelf.registry.launch_settings("m", 1)] == ["me", "you"]


@pytest.mark.parametrize("name", ["", "A", "a/b", "../x", "-a", "a" * 129, "a b", "ä"])
def test_names(name: str) -> None:
    with pytest.raises(Invalid):
        check_name(name)


@pytest.mark.parametrize("text", ["SmolLM2-135M-Instruct.Q4_1", "  ", "Ünï", "a" * 300, "../.."])
def test_suggested_names_are_names(text: str) -> None:
    check_name(suggest_name(text))


def test_bytes_that_are_gone_make_no_version(shelf: Shelf) -> None:
    version = shelf.add("one", "a")
    draft = Draft(
        model="two", manifest=version.manifest, artifacts=version.artifacts, format="gguf",
        licence=None, notice=None, source="s", resolved="s", dependencies=(),
    )  # fmt: skip
    shelf.registry.remove_model("one")
    with pytest.raises(Missing, match="import again"):
        shelf.registry.register(draft, 0.0, "me")
    assert shelf.registry.names() == []


def test_what_a_kill_left_without_a_version_is_swept(shelf: Shelf) -> None:
    version = shelf.add("one", "a")
    loose = shelf.folder / "loose"
    loose.write_bytes(b"left by a kill")
    digest, _ = shelf.blobs.add(loose, move=True)
    assert shelf.registry.sweep() == 1
    assert list(shelf.blobs.digests()) == [version.artifacts[0].digest]
    assert digest not in shelf.blobs.digests()


def test_what_an_adapter_was_made_for_stays_as_long_as_it(shelf: Shelf) -> None:
    for name in ("one", "two"):
        shelf.add("m", name)
    base = shelf.registry.version("m", 2)
    shelf.add(
        "tone", "t", Dependency(kind="base", target="m", target_number=2, digest=base.row.digest)
    )
    shelf.add("tuned", "u", Dependency(kind="base", target="m"))  # names only what it came from
    for remove in (lambda: shelf.registry.remove("m", 2), lambda: shelf.registry.remove_model("m")):
        with pytest.raises(Conflict, match="the base of tone:1"):
            remove()
    shelf.registry.remove_model("tone")
    shelf.registry.remove("m", 2)
    shelf.registry.remove_model("m")
