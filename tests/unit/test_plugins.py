"""The one door for plugins."""

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from freehold.errors import Missing
from freehold.plugins import GROUP, allowed, known, open_kind
from freehold.settings import Plugins


def test_ours_are_found_and_can_be_denied() -> None:
    assert set(open_kind("engine", Plugins())) == {"llamacpp", "openai"}
    assert set(open_kind("engine", Plugins(deny=("engine.openai",)))) == {"llamacpp"}
    assert "source.catalog" in known()


def test_anothers_is_closed_until_allowed() -> None:
    stranger = EntryPoint("engine.stranger", "json:JSONDecoder", GROUP)
    assert allowed(Plugins(), [stranger]) == {}
    assert list(allowed(Plugins(allow=("engine.stranger",)), [stranger])) == ["engine.stranger"]


def test_one_that_cannot_be_loaded_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "stranger-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(f"[{GROUP}]\nengine.broken = not.there:Class\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "broken" not in open_kind("engine", Plugins())
    with pytest.raises(Missing, match=r"engine\.broken"):
        open_kind("engine", Plugins(allow=("engine.broken",)))
