"""The commands that documents show are run as they stand."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import STARTER
from tests.house import House, eventually

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs" / "tutorial.md", *sorted(ROOT.glob("docs/how-to/*.md"))]
BLOCK = re.compile(r"(<!-- not run: [^\n]*-->\n)?```(sh|python)\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def reader(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house as the first ``make run`` leaves it."""
    house = House(tmp_path_factory.mktemp("reader") / "home")
    house.cli("model", "import", str(weights), "--name", STARTER)
    house.cli("deploy", STARTER)
    try:
        yield house.start()
    finally:
        house.close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_of_a_page(reader: House, page: Path, tmp_path: Path) -> None:
    blocks = [
        (kind, text) for skipped, kind, text in BLOCK.findall(page.read_text()) if not skipped
    ]
    environment = {
        **os.environ,
        "FREEHOLD_HOME": str(reader.home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    for kind, text in blocks:
        command = ["bash", "-euo", "pipefail", "-c"] if kind == "sh" else [sys.executable, "-c"]
        shown = text.replace("http://127.0.0.1:8400", reader.url)
        ran = subprocess.run(
            [*command, shown], cwd=tmp_path, env=environment, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, f"{page.name}:\n{text}\n{ran.stdout}{ran.stderr}"
        assert ran.stdout.strip() or ">" in text
    eventually(lambda: reader.call("GET", "/readyz", key=None).status == 200, "still well")
