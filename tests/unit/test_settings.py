"""One file, strict, with the nearest key in every error."""

from pathlib import Path

import pytest

from freehold.errors import Invalid, Missing
from freehold.models.deploy import deadlines
from freehold.models.deployment import Deployment
from freehold.secret import check_secret_reference, resolve_secret
from freehold.settings import Runtime, Settings, home_directory, parse_settings, read_settings


def test_absent_means_defaults(tmp_path: Path) -> None:
    assert read_settings(tmp_path) == Settings()
    assert Settings().server.host == "127.0.0.1"


def test_values_are_read() -> None:
    settings = parse_settings("[server]\nport = 9000\n[runtime]\nidle_unload = 30\n")
    assert (settings.server.port, settings.runtime.idle_unload) == (9000, 30.0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[servr]", "unknown key servr: did you mean server"),
        ("[server]\nprot = 1", "unknown key server.prot: did you mean port"),
        ("[server]\nzzzzz = 1", "known are:"),
        ("[server]\nport = 70000", "port"),
        ("[server]\nport = 'x'", "port"),
        ("[runtime]\nmemory_share = 0", "memory_share"),
        ("[server", "not TOML"),
        ("server = 1", "server"),
    ],
)
def test_what_is_wrong_is_named(text: str, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        parse_settings(text)


def test_a_secret_is_a_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "s").write_text(" shh \n")
    monkeypatch.setenv("A_SECRET", "from the environment")
    assert resolve_secret(f"file:{tmp_path / 's'}") == "shh"
    assert resolve_secret("env:A_SECRET") == "from the environment"
    for missing in ("env:NOT_THERE", "file:/not/there"):
        with pytest.raises(Missing):
            resolve_secret(missing)
    for literal in ("sk-123", "env:", "", "env:a b"):
        with pytest.raises(Invalid) as caught:
            check_secret_reference(literal)
        assert "sk-123" not in str(caught.value)


def test_home_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FREEHOLD_HOME", str(tmp_path))
    assert home_directory(None) == tmp_path
    assert home_directory("/elsewhere") == Path("/elsewhere")
    monkeypatch.delenv("FREEHOLD_HOME")
    assert home_directory(None) == Path("~/.freehold").expanduser()


def test_deadlines_of_a_deployment_come_before_the_settings() -> None:
    settings = Runtime(token_timeout=5, first_token_timeout=50, total_timeout=70)
    endpoint = Deployment(name="d", urls=("http://x/v1",), total_timeout=9, connect_timeout=0.5)
    found = deadlines(endpoint, settings)
    assert (found.connect, found.token, found.total) == (0.5, 5, 9)
    assert deadlines(Deployment(name="d", model="m"), settings).token == 50
    assert deadlines(Deployment(name="d", model="m", token_timeout=2), settings).token == 2
    with pytest.raises(Invalid):
        parse_settings("[runtime]\ntoken_timeout = 0")
