"""What a version's own launch settings come to in a deployment, and who goes before them."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from freehold.models.deploy import local_launch, plan
from freehold.models.deployment import Deployment
from freehold.models.gguf import read_header
from freehold.models.manifest import Tokenizer, describe
from freehold.models.registry import Draft, LaunchSettings, Version
from freehold.runtime.engine import Launch
from freehold.settings import Runtime
from freehold.store.versions import Artifact
from tests.make_gguf import gguf
from tests.unit.models.test_registry import Shelf


class Shop(Shelf):
    """A shelf whose models have vocabularies."""

    def put(self, model: str, vocabulary: str) -> Version:
        file = self.folder / "m.gguf"
        fields = {"general.architecture": "llama", "general.name": model,
                  "llama.context_length": 32_768}  # fmt: skip
        file.write_bytes(gguf(fields))
        told = Tokenizer(model="gpt2", pre=None, tokens=8, sha256=vocabulary * 64)
        manifest = msgspec.structs.replace(describe(read_header(file)), tokenizer=told)
        digest, size = self.blobs.add(file, move=True)
        draft = Draft(
            model=model, manifest=manifest, format="gguf", licence=None, notice=None,
            artifacts=(Artifact(name="model.gguf", digest=digest, bytes=size),),
            source="s", resolved="r",
        )  # fmt: skip
        return self.registry.register(draft, 1.0, "me")[0]

    def launch(self, **said: object) -> Launch:
        deployment = Deployment(name="d", model="big", **said)  # type: ignore[arg-type]
        return local_launch(
            deployment, self.registry.resolve("big"), self.registry, Runtime(), None
        )


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    made.put("big", "a")
    made.put("small", "a")
    made.put("other", "b")
    found = LaunchSettings(context=16_384, cache_type="q8_0", draft="small:1", drafted=6)
    made.registry.set_launch_settings("big", 1, found, 1.0, "me")
    yield made
    made.database.close()


def test_a_deployment_runs_as_its_version_was_found_to_run_best(shop: Shop) -> None:
    launch = shop.launch()
    assert (launch.context, launch.cache_type, launch.drafted) == (16_384, "q8_0", 6)
    assert launch.draft == shop.registry.resolve("small").row.digest
    plain = shop.launch(draft="", cache_type="f16")
    assert plain.bytes > launch.bytes - plain.bytes  # the draft's memory is reckoned with


def test_what_the_deployment_says_goes_before(shop: Shop) -> None:
    launch = shop.launch(context=1024, cache_type="f16", draft="", drafted=3)
    assert (launch.context, launch.cache_type) == (1024, "f16")
    assert (launch.draft, launch.drafted) == (None, 0)
    assert shop.launch(flash=False).cache_type == ""  # a coarse cache would not load


def test_a_draft_that_cannot_be_used_any_more_is_left_out(shop: Shop) -> None:
    shop.registry.remove_model("small")
    assert (shop.launch().draft, shop.launch().drafted) == (None, 0)
    shop.registry.set_launch_settings("big", 1, LaunchSettings(draft="other"), 2.0, "me")
    assert shop.launch().draft is None
    # What somebody asked for by name is not left out in silence.
    wanted = plan(Deployment(name="d", model="big", draft="other"), shop.registry, Runtime())
    assert "another vocabulary" in (wanted.reason or "")
