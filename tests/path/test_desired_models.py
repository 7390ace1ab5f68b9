"""A document whose models build on each other: brought in in order, on a home that has nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.house import House, eventually
from tests.make_checkpoint import Lora, decoder
from tests.path.test_adapters import _bring, _clear, _deploy, _said

NAMES = ("a-formal", "base")


@pytest.fixture
def furnished(new_house: Callable[..., House], tmp_path: Path) -> House:
    """A house with a base, converted, and an adapter whose name comes first in any list."""
    made = decoder("qwen2", seed=7)
    made.save(tmp_path / "base")
    Lora(made, 1).save(tmp_path / "a-formal")
    house = new_house(empty=True, name="first").start()
    _bring(house, tmp_path / "base")
    _bring(house, tmp_path / "a-formal", base="base")
    for name in NAMES:
        _deploy(house, name)
    for name in NAMES:
        eventually(lambda name=name: house.deployment(name)["state"] == "ready", name)
    return house


def test_a_base_an_adapter_and_their_conversions_come_again_on_an_empty_home(
    furnished: House, new_house: Callable[..., House], tmp_path: Path
) -> None:
    document = tmp_path / "state.toml"
    document.write_text(furnished.cli("export"))
    question = _clear(furnished, NAMES)[0]
    said = {name: _said(furnished, name, question) for name in NAMES}
    shown = {name: furnished.json("model", "show", name)["versions"] for name in NAMES}
    furnished.close()
    other = new_house(empty=True, name="second").start()
    planned = other.json("apply", str(document), "--plan")["changes"]
    assert [c["act"] for c in planned].count("import") == 4
    jobs = other.json("apply", str(document))["jobs"]
    assert len(jobs) == 1  # one after the other
    for name in NAMES:
        eventually(lambda name=name: other.deployment(name)["state"] == "ready", name)
        found = other.json("model", "show", name)["versions"]
        for key in ("digest", "dependencies", "lineage"):
            assert [v[key] for v in found] == [v[key] for v in shown[name]]
    assert {name: _said(other, name, question) for name in NAMES} == said
    assert other.json("apply", str(document), "--plan")["changes"] == []


def test_what_cannot_be_made_again_is_refused_before_anything_changes(
    new_house: Callable[..., House],
) -> None:
    house = new_house(empty=True).start()
    head = '[[models]]\nname = "m"\nsha256 = "' + "a" * 64 + '"\n'
    for source, parent, says in (
        ("compress:m:1", "", "freehold://HOST/m:VERSION"),
        ("convert:m:1", "b" * 64, "neither here nor in the document"),
    ):
        text = head + f'source = "{source}"\n' + (f'parent = "{parent}"\n' if parent else "")
        refused = house.call("PUT", "/api/desired", {"document": text})
        assert refused.status == 400, refused.body
        assert says in refused.error["message"]
    assert house.call("GET", "/api/jobs").json == []
