"""The default install, without extras: what needs one says which, in one line, and loses nothing.

A real environment with everything that the tests have but what the extras bring.
"""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.make_checkpoint import decoder
from tests.make_gguf import gguf
from tests.registries import digest, free_port, hostile, layer, manifest

EXTRAS = {
    "convert": ("gguf", "numpy"),
    "otel": ("opentelemetry",),
    "scan": ("modelaudit", "modelaudit_picklescan", "fickling", "yara_x"),
    "sign": ("cryptography",),
    "stores": ("obstore",),
    "zstd": ("backports",),
}


class Bare:
    """The command line of a default install, on a home of its own."""

    def __init__(self, python: Path, home: Path) -> None:
        self.python, self.home = python, home
        home.mkdir()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.python, "-m", "freehold", "--home", str(self.home), *arguments],
            capture_output=True, text=True, timeout=60, check=False,
            env={"PATH": os.environ["PATH"], "HOME": str(self.home)},
        )  # fmt: skip

    def refused(self, *arguments: str, extra: str) -> None:
        """Run what needs an extra, and see that it says so and nothing else."""
        ran = self.run(*arguments)
        assert ran.returncode == 1, (ran.stdout, ran.stderr)
        last = ran.stderr.strip().splitlines()[-1]
        assert f"pip install 'freehold[{extra}]'" in last, ran.stderr
        assert "Traceback" not in ran.stderr

    def models(self) -> list[str]:
        ran = self.run("model", "list", "--json")
        return [each["name"] for each in json.loads(ran.stdout)] if ran.stdout else []


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("default") / "venv"
    venv.create(folder, symlinks=True)
    made = next(folder.glob("lib/python*/site-packages"))
    hidden = {name for names in EXTRAS.values() for name in names}
    for path in Path(sysconfig.get_paths()["purelib"]).iterdir():
        package = path.name.partition(".")[0].partition("-")[0]
        if package not in hidden and path.suffix != ".pth":
            (made / path.name).symlink_to(path)
    (made / "freehold.pth").write_text(str(ROOT))
    return folder / "bin" / "python"


@pytest.fixture
def bare(python: Path, tmp_path: Path) -> Bare:
    return Bare(python, tmp_path / "home")


def test_nothing_of_the_extras_is_there(python: Path) -> None:
    for names in EXTRAS.values():
        for name in names:
            if name == "backports" and sys.version_info >= (3, 14):
                continue
            ran = subprocess.run([python, "-c", f"import {name}"], capture_output=True, check=False)
            assert ran.returncode == 1, name


def test_every_extra_has_its_turn_here() -> None:
    import tomllib

    known = tomllib.loads((ROOT / "pyproject.toml").read_text())
    here = {"compress", *EXTRAS}  # what its own tests look at is named first
    assert known["project"]["optional-dependencies"].keys() <= here


def test_stores(bare: Bare) -> None:
    bare.refused("model", "import", "gs://bucket/m.gguf", extra="stores")
    assert bare.models() == []


def test_convert(bare: Bare, tmp_path: Path) -> None:
    folder = decoder("llama3").save(tmp_path / "tiny")
    assert bare.run("model", "import", str(folder)).returncode == 0
    bare.refused("model", "convert", "tiny", extra="convert")
    assert bare.models() == ["tiny"]


def test_sign(bare: Bare, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(gguf({"general.architecture": "llama"}))
    assert bare.run("model", "import", str(tmp_path / "m.gguf")).returncode == 0
    (tmp_path / "k.pem").write_text("no key yet")
    bare.refused("model", "sign", "m", "--key", str(tmp_path / "k.pem"), extra="sign")
    # Where signatures are required, one that cannot be checked is none: nothing comes in.
    (bare.home / "freehold.toml").write_text(
        f"[signing]\nrequired = true\nkeys = ['{tmp_path / 'k.pem'}']\n"
    )
    (tmp_path / "n.gguf").write_bytes(gguf({"general.architecture": "gemma3"}))
    bare.refused("model", "import", str(tmp_path / "n.gguf"), extra="sign")
    assert bare.models() == ["m"]


def test_scan(bare: Bare, tmp_path: Path) -> None:
    folder = decoder("llama3").save(tmp_path / "tiny")
    head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }".ljust(117) + b"\n"
    numbers = b"\x93NUMPY\x01\x00" + bytes([118, 0]) + head + bytes(8)
    (folder / "vocab.txt").write_bytes(numbers)  # a kind that is not settled by our own reading
    bare.refused("model", "import", str(folder), extra="scan")
    (tmp_path / "rule.yar").write_text("rule r { condition: false }")
    (bare.home / "freehold.toml").write_text(f"[scan]\nyara = ['{tmp_path / 'rule.yar'}']\n")
    (tmp_path / "m.gguf").write_bytes(gguf({"general.architecture": "llama"}))
    bare.refused("model", "import", str(tmp_path / "m.gguf"), extra="scan")
    assert bare.models() == []
    assert not list((bare.home / "blobs" / "sha256").glob("*/*"))


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python has it itself from 3.14 on")
def test_zstd(bare: Bare) -> None:
    with hostile() as registry:
        packed = registry.add(b"never fetched")
        made = layer(packed, None, "application/vnd.cncf.model.weight.v1.tar+zstd")
        registry.push("v1", manifest(made))
        bare.refused("model", "import", f"oci://{registry.host}/m:v1", extra="zstd")
        assert not any(digest(packed) in path for _, path, *_ in registry.asked)


def test_otel(bare: Bare) -> None:
    (bare.home / "freehold.toml").write_text("[telemetry]\nendpoint = 'http://127.0.0.1:9'\n")
    bare.refused("up", "--no-starter", "--port", str(free_port()), extra="otel")


def test_make_installs_extras_as_the_lock_has_them(tmp_path: Path) -> None:
    told = subprocess.run(
        ["make", "-n", "EXTRAS=zstd convert", "run"], cwd=ROOT, capture_output=True, text=True,
        check=True,
    ).stdout.splitlines()  # fmt: skip
    [pins] = [line for line in told if line.startswith("sed ")]
    [install] = [line for line in told if ".[convert,zstd]" in line]
    pinned = tmp_path / "constraints.txt"
    for line in (pins, f"{install} --dry-run --no-index"):
        line = line.replace(".venv/constraints.txt", str(pinned))
        line = line.replace(".venv/bin/python", sys.executable)
        subprocess.run(["sh", "-euc", line], cwd=ROOT, check=True)
    lines = pinned.read_text().splitlines()
    assert {line.partition("==")[0] for line in lines} >= {"gguf", "numpy"}
    assert all("==" in line and "\\" not in line and "--hash" not in line for line in lines)
