"""What is not converted, and what a conversion does not lose: quarantine, licences, names."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from freehold.errors import Conflict, Invalid, Refused
from freehold.models.conversion import SCRATCH, check_convertible, clear, convert
from freehold.store.versions import Artifact
from tests.make_checkpoint import decoder
from tests.unit.models.test_quarantine import Shop


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    yield made
    made.database.close()


def test_what_is_in_quarantine_is_not_converted(shop: Shop, tmp_path: Path) -> None:
    made = decoder("llama3")
    made.tokenizer_config["chat_template"] = "{{ ''.__class__ }}"
    version = shop.bring(made.save(tmp_path / "bad"))
    with pytest.raises(Refused, match="in quarantine"):
        check_convertible(version, shop.workshop)


def test_a_finding_that_was_released_is_found_again_in_what_is_made_of_it(
    shop: Shop, tmp_path: Path
) -> None:
    made = decoder("llama3")
    made.tokenizer_config["chat_template"] = "{{ ''.__class__ }}"
    version = shop.bring(made.save(tmp_path / "bad"), by="eve")
    shop.release(shop.release(version, "ann", "we wrote it"), "bob", now=3.0)
    version = shop.registry.version("m", 1)
    found, new = convert(version, None, shop.workshop, lambda *_: None, 4.0, "eve")
    assert new
    assert found.quarantine is not None
    assert found.quarantine.is_open
    assert shop.registry.aliases("m").get("production") != 2


def test_only_safetensors_are_converted_and_only_from_files_with_names(
    shop: Shop, tmp_path: Path
) -> None:
    version = shop.bring(decoder("llama3").save(tmp_path / "good"))
    found, _ = convert(version, "f16", shop.workshop, lambda *_: None, 2.0, "eve")
    assert shop.registry.aliases("m") == {"production": 2}
    with pytest.raises(Conflict, match="m:2 is gguf already"):
        check_convertible(found, shop.workshop)
    outside = Artifact(name="../../out.json", digest=version.artifacts[0].digest, bytes=1)
    strange = msgspec.structs.replace(version, artifacts=(*version.artifacts, outside))
    with pytest.raises(Invalid, match="no name of a file"):
        convert(strange, "f16", shop.workshop, lambda *_: None, 2.0, "eve")


def test_a_conversion_that_is_stopped_or_ran_in_another_life_leaves_nothing(
    shop: Shop, tmp_path: Path
) -> None:
    version = shop.bring(decoder("llama3").save(tmp_path / "good"))

    def stop(stage: str, _done: int, _of: int) -> None:
        if stage == "convert":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(version, None, shop.workshop, stop, 2.0, "eve")
    assert [v.row.number for v in shop.registry.versions("m")] == [1]
    assert not list(shop.workshop.scratch.glob(f"{SCRATCH}*"))
    left = shop.workshop.scratch / f"{SCRATCH}x"
    left.mkdir(parents=True)
    kept = shop.workshop.scratch / "download"
    kept.mkdir()
    clear(shop.workshop.scratch)
    assert (left.exists(), kept.exists()) == (False, True)
    shutil.rmtree(kept)
