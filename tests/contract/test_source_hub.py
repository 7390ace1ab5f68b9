"""``source.hub`` against a local server that speaks the Hub's protocol."""

import hashlib
import json
import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from freehold.builtin.source_hub import Hub
from freehold.errors import Forbidden, Invalid, Missing, Unavailable
from freehold.models import connections, ranges
from freehold.models.identify import identify
from freehold.models.source import Origin
from freehold.settings import Sources
from tests.house import House
from tests.make_gguf import gguf
from tests.make_safetensors import folder
from tests.servers import ranged, reply, serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = gguf({"general.architecture": "llama", "general.name": "hub"})


class Server:
    """Answers ``/api/models/...`` and ``/.../resolve/...`` as the Hub does."""

    def __init__(self) -> None:
        self.files = {"m-Q4_K_M.gguf": MODEL, "m-Q8_0.gguf": b"x", "README.md": b"hello"}
        self.gated = False
        self.etag: str | None = None
        self.elsewhere: str | None = None
        self.cuts: list[int] = []
        self.asked: list[tuple[str, str | None]] = []
        self.tokens: set[str | None] = set()

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        self.asked.append((path, request.headers.get("range")))
        self.tokens.add(request.headers.get("authorization"))
        if path.startswith("/api/models/org/m"):
            self._info(request, path)
        elif path.startswith(f"/org/m/resolve/{COMMIT}/"):
            self._file(request, path.rpartition("/")[2])
        else:
            reply(request, 404, b"", {"x-error-code": "RepoNotFound"})

    def _info(self, request: BaseHTTPRequestHandler, path: str) -> None:
        revision = path.partition("/revision/")[2]
        if self.gated:
            reply(request, 403, b"", {"x-error-code": "GatedRepo"})
        elif revision not in ("", "main", COMMIT):
            reply(request, 404, b"", {"x-error-code": "RevisionNotFound"})
        else:
            document = {
                "id": "org/m", "sha": COMMIT, "cardData": {"license": "apache-2.0"},
                "siblings": [{"rfilename": name} for name in self.files],
            }  # fmt: skip
            kind = {"content-type": "application/json"}
            reply(request, 200, json.dumps(document).encode(), kind)

    def _file(self, request: BaseHTTPRequestHandler, name: str) -> None:
        data = self.files[name]
        if request.command == "HEAD":
            headers = {
                "etag": self.etag or f'"{hashlib.sha256(data).hexdigest()}"',
                "x-repo-commit": COMMIT,
                "content-length": str(len(data)), "accept-ranges": "bytes",
            }  # fmt: skip
            if self.elsewhere and name == "big.gguf":
                headers |= {"location": self.elsewhere, "x-linked-size": str(len(data)),
                            "x-linked-etag": headers["etag"]}  # fmt: skip
                reply(request, 302, b"", headers | {"content-length": "0"})
            else:
                reply(request, 200, data, headers)
        else:
            ranged(request, data, self.cuts.pop(0) if self.cuts else None)


@pytest.fixture
def hub() -> Iterator[tuple[Server, Hub]]:
    server = Server()
    with serving(server.handle) as url:
        yield server, Hub(Sources(hub_endpoint=url, timeout=5))


def fetch(hub: Hub, text: str, scratch: Path) -> object:
    origin = hub.claims(text)
    assert isinstance(origin, Origin)
    return hub.fetch(origin, scratch, lambda *_: None)


def test_a_file_at_its_commit(hub: tuple[Server, Hub], tmp_path: Path) -> None:
    fetched = fetch(hub[1], "hf:org/m/m-Q4_K_M.gguf@main", tmp_path)
    assert fetched.files["model.gguf"].read_bytes() == MODEL  # type: ignore[attr-defined]
    assert fetched.resolved == f"hf:org/m/m-Q4_K_M.gguf@{COMMIT}"  # type: ignore[attr-defined]
    assert fetched.licence == "apache-2.0"  # type: ignore[attr-defined]


def test_the_usual_quantisation_is_chosen(hub: tuple[Server, Hub], tmp_path: Path) -> None:
    fetched = fetch(hub[1], "hf:org/m", tmp_path)
    assert fetched.name == "m-Q4_K_M"  # type: ignore[attr-defined]


def test_a_model_in_safetensors_comes_with_what_it_needs(
    hub: tuple[Server, Hub], tmp_path: Path
) -> None:
    made = folder(tmp_path / "made")
    hub[0].files = {path.name: path.read_bytes() for path in made.iterdir()}
    hub[0].files |= {"pytorch_model.bin": b"x", "train.py": b"x", "a.png": b"x", ".hidden": b"x"}
    fetched = hub[1].fetch(
        Origin(source="hub", location="org/m"), tmp_path / "scratch", lambda *_: None
    )
    assert sorted(fetched.files) == sorted(path.name for path in made.iterdir())
    assert (fetched.name, fetched.resolved) == ("m", f"hf:org/m@{COMMIT}")
    assert identify(fetched.files).format == "safetensors"
    assert not any(path.endswith((".bin", ".py")) for path, _ in hub[0].asked)


def test_a_download_that_broke_off_goes_on(hub: tuple[Server, Hub], tmp_path: Path) -> None:
    server, source = hub
    server.files["big.gguf"] = os.urandom(25_000_000)
    server.cuts = [22_000_000]
    for _ in range(3):
        try:
            fetched = fetch(source, "hf:org/m/big.gguf", tmp_path)
            break
        except Unavailable:
            continue
    data = fetched.files["model.gguf"].read_bytes()  # type: ignore[attr-defined]
    assert data == server.files["big.gguf"]
    ranges = [asked for path, asked in server.asked if path.endswith("big.gguf") and asked]
    assert ranges


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    """Ranges of a size that tests can afford."""
    monkeypatch.setattr(ranges, "RANGE", 64 * 1024)
    monkeypatch.setattr(ranges, "LEAST", 128 * 1024)
    monkeypatch.setattr(connections, "PAUSE", 0.01)
    return 64 * 1024


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_large_file_comes_by_ranges(
    hub: tuple[Server, Hub], tmp_path: Path, small: int, elsewhere: bool
) -> None:
    """Also from the host that it is sent to, which is not told the token."""
    server, _ = hub
    (tmp_path / "token").write_text("s3cret")
    server.files["big.gguf"] = data = os.urandom(5 * small + 9)
    server.cuts = [small, 100]
    asked: list[tuple[str | None, str | None]] = []

    def cdn(request: BaseHTTPRequestHandler) -> None:
        asked.append((request.headers.get("range"), request.headers.get("authorization")))
        # An address is good for a while: the third one who comes is sent for a new one.
        if len(asked) == 3:
            reply(request, 403)
        else:
            ranged(request, data)

    with serving(cdn) as url:
        server.elsewhere = f"{url}/signed" if elsewhere else None
        source = Hub(Sources(hub_endpoint=hub[1]._settings.hub_endpoint, timeout=5,
                             hub_token=f"file:{tmp_path / 'token'}"))  # fmt: skip
        (tmp_path / "s").mkdir()
        fetched = fetch(source, "hf:org/m/big.gguf", tmp_path / "s")
    assert fetched.files["model.gguf"].read_bytes() == data  # type: ignore[attr-defined]
    here = [each for path, each in server.asked if path.endswith("big.gguf") and each]
    wanted = {f"bytes={n * small}-{(n + 1) * small - 1}" for n in range(5)}
    assert wanted <= ({each for each, _ in asked} if elsewhere else set(here))
    assert server.tokens == {"Bearer s3cret"}
    assert {token for _, token in asked} <= {None}


def test_what_has_no_digest_comes_by_the_library(
    hub: tuple[Server, Hub], tmp_path: Path, small: int
) -> None:
    server, source = hub
    server.files["big.gguf"] = data = os.urandom(5 * small)
    server.etag = '"0123456789abcdef0123456789abcdef01234567"'
    fetched = fetch(source, "hf:org/m/big.gguf", tmp_path)
    assert fetched.files["model.gguf"].read_bytes() == data  # type: ignore[attr-defined]
    assert not [each for path, each in server.asked if path.endswith("big.gguf") and each]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("hf:org/none", Missing),
        ("hf:org/m/none.gguf", Missing),
        ("hf:org/m@nothere", Missing),
        ("hf:org", Invalid),
        ("hf:org/m/../../etc/passwd", Missing),
    ],
)
def test_what_is_not_there(
    hub: tuple[Server, Hub], tmp_path: Path, text: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        fetch(hub[1], text, tmp_path)


@pytest.mark.parametrize(
    "name",
    ["../../out.gguf", "/etc/out.gguf", "a/../out.gguf", "a//out.gguf", "..\\out.gguf",
     "C:out.gguf", "a\nb.gguf", "x" * 501 + ".gguf"],
)  # fmt: skip
def test_a_hostile_name_is_one_clear_refusal(
    hub: tuple[Server, Hub], tmp_path: Path, name: str
) -> None:
    hub[0].files = {name: MODEL}
    with pytest.raises(Invalid, match="which is no name for one: nothing was fetched"):
        fetch(hub[1], "hf:org/m", tmp_path / "scratch")
    assert not list(tmp_path.rglob("*out.gguf"))


def test_a_gated_repository_says_how_to_get_in(hub: tuple[Server, Hub], tmp_path: Path) -> None:
    hub[0].gated = True
    with pytest.raises(Forbidden, match="accept its terms"):
        fetch(hub[1], "hf:org/m", tmp_path)


def test_the_token_is_sent_to_the_endpoint_and_is_in_no_error(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hf_secret")
    server = Server()
    with serving(server.handle) as url:
        settings = Sources(hub_endpoint=url, hub_token=f"file:{tmp_path / 'token'}", timeout=5)
        with pytest.raises(Missing) as caught:
            fetch(Hub(settings), "hf:org/none", tmp_path)
    assert "Bearer hf_secret" in server.tokens
    assert "hf_secret" not in str(caught.value)


def test_offline_is_honoured(tmp_path: Path) -> None:
    server = Server()
    with serving(server.handle) as url:
        house = House(tmp_path / "home", environment={"HF_HUB_OFFLINE": "1"})
        house.home.mkdir()
        (house.home / "freehold.toml").write_text(f'[sources]\nhub_endpoint = "{url}"\n')
        told = house.run_cli("model", "import", "hf:org/m")
        assert told.returncode == 1
        assert "HF_HUB_OFFLINE is set" in told.stderr
        assert server.asked == []
        house.environment = {}
        assert house.json("model", "import", "hf:org/m")["licence"] == "apache-2.0"


def test_a_hub_that_does_not_answer(tmp_path: Path) -> None:
    gone = Hub(Sources(hub_endpoint="http://127.0.0.1:9", timeout=1))
    with pytest.raises(Unavailable, match="cannot be reached"):
        fetch(gone, "hf:org/m", tmp_path)
