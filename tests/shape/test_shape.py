"""The house keeps its shape: rooms, sizes, names, and documents that are about it."""

import ast
import re
import tomllib
from importlib import import_module
from pathlib import Path

import click
import pytest

from freehold.cli.main import COMMANDS, cli
from freehold.cli.models import model

ROOT = Path(__file__).parents[2]
HOUSE = ROOT / "freehold"
MODULES = sorted(path for path in HOUSE.rglob("*.py") if "versions" not in path.parts[-2:-1])
ROOMS = sorted(path.name for path in HOUSE.iterdir() if (path / "__init__.py").exists())


def imported(path: Path) -> set[str]:
    """Return every module that a file imports, and every name that it takes from one."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{each.name}" for each in node.names}
    return found


def test_every_room_is_in_the_contract_of_layers() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(c for c in contracts["contracts"] if c["type"] == "layers")["layers"]
    named = {name.strip() for layer in layers for name in layer.split("|")}
    assert set(ROOMS) <= named
    assert all((HOUSE / name).exists() or (HOUSE / f"{name}.py").exists() for name in named)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_a_file_is_about_one_thing_and_fits_a_sitting(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module says what it is"
    assert text.count("\n") <= 400, "when a room gets crowded, redesign it"
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if not node.name.startswith("_"):
                inside = isinstance(node, ast.ClassDef) or node in tree.body
                assert ast.get_docstring(node) or not inside, f"{node.name} says what it does"
            length = (node.end_lineno or 0) - node.lineno
            assert isinstance(node, ast.ClassDef) or length <= 60, f"{node.name} is too long"
    assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b", text)


ELSEWHERE = HOUSE / "builtin" / "llmcompressor_work.py"
"""Runs as a script in an interpreter of its own, where torch is; nothing of ours is there."""


def test_what_runs_elsewhere_is_nobodys_import_and_imports_nothing_of_ours() -> None:
    assert "freehold" not in {name.partition(".")[0] for name in imported(ELSEWHERE)}
    for path in MODULES:
        assert not any(name.endswith(ELSEWHERE.stem) for name in imported(path)), path


def test_only_settings_reads_the_environment_and_nobody_unpickles() -> None:
    for path in MODULES:
        if path == ELSEWHERE:
            continue
        text = path.read_text()
        if path.name != "settings.py":
            assert "os.environ" not in text, path
            assert "getenv" not in text, path
        for node in ast.walk(ast.parse(text)):
            names = [each.name for each in getattr(node, "names", ())]
            module = getattr(node, "module", None) or ""
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                found = {name.partition(".")[0] for name in (*names, module)}
                assert not found & {"pickle", "marshal", "shelve", "torch", "yaml"}, path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec", "__import__"), path


def test_the_two_stories_fit_a_screen_or_two_each() -> None:
    for name in ("gateway/pipeline.py", "models/pipeline.py"):
        assert (HOUSE / name).read_text().count("\n") <= 260


def test_every_module_can_be_imported_alone() -> None:
    for path in MODULES:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if name not in ("freehold.__main__", "freehold.store.migrations.env"):
            import_module(name)


def test_every_command_of_the_surface_is_there() -> None:
    wanted = {
        "up", "status", "chat", "model", "deploy", "undeploy", "apply", "export", "key", "doctor",
    }  # fmt: skip
    assert wanted <= set(COMMANDS)
    assert {"import", "list", "show", "verify", "remove", "catalog"} <= set(model.commands)


def test_every_command_takes_json_and_home() -> None:
    def leaves(command: click.Command) -> list[click.Command]:
        if not isinstance(command, click.Group):
            return [command]
        context = click.Context(command)
        inner = [command.get_command(context, name) for name in command.list_commands(context)]
        return [leaf for each in inner if each is not None for leaf in leaves(each)]

    found = leaves(cli)
    assert len(found) > 20
    for command in found:
        options = {name for each in command.params for name in each.opts}
        assert {"--json", "--home", "--url", "--key"} <= options
        assert command.help


def test_the_lock_files_pin_by_hash_and_name_no_index() -> None:
    for name in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / name).read_text()
        assert "--index-url" not in text
        pins = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
        assert all("==" in line for line in pins)
        assert text.count("--hash=sha256:") >= len(pins)
    base = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"^(torch|docker|tensorflow|transformers)==", base, re.MULTILINE)


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE"])
def test_the_documents_are_there(name: str) -> None:
    assert (ROOT / name).read_text().strip()


def test_architecture_fits_a_page_and_names_every_room() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    assert len(text.splitlines()) <= 120
    assert all(f"{room}/" in text for room in ROOMS)


def test_links_between_documents_lead_somewhere() -> None:
    for path in [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", path.read_text()):
            if "://" not in link:
                assert (path.parent / link).exists(), f"{path.name} links to {link}"


def test_no_document_or_source_names_this_machine() -> None:
    files = [*MODULES, *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "Makefile"]
    for path in files:
        assert not re.search(r"/work/|/tmp/|/root/", path.read_text()), path
