"""Run a model's code in a child that can reach nothing.

Two walls. What is not on short lists of syntax, names and methods is not run at all; what is runs
in an isolated interpreter with limits on time, memory, files and processes, in an empty folder.
It answers one question: did it run to its end without error?
"""

import ast
import builtins
import itertools
import math
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from types import MappingProxyType

Imported = Mapping[str, str]
"""What a program calls a module, to what the module is."""

SECONDS = 3
MEMORY = 512 * 1024 * 1024
LONGEST = 20_000

_TYPING = (
    "Any Callable Dict FrozenSet Iterable Iterator List Mapping NamedTuple Optional Sequence Set "
    "Tuple TypeVar Union"
)
MODULES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "math": frozenset(name for name in dir(math) if not name.startswith("_")),
        "re": frozenset(
            [
                "compile",
                "search",
                "match",
                "fullmatch",
                "findall",
                "finditer",
                "split",
                "sub",
                "escape",
            ]
        ),
        "string": frozenset(
            ["ascii_letters", "ascii_lowercase", "ascii_uppercase", "digits", "punctuation"]
        ),
        "itertools": frozenset(name for name in dir(itertools) if not name.startswith("_")),
        "functools": frozenset(["reduce", "lru_cache", "cache", "partial", "cmp_to_key"]),
        "collections": frozenset(["Counter", "OrderedDict", "defaultdict", "deque"]),
        "typing": frozenset(_TYPING.split()),
        "heapq": frozenset(
            ["heapify", "heappop", "heappush", "heappushpop", "nlargest", "nsmallest"]
        ),
        "bisect": frozenset(["bisect", "bisect_left", "bisect_right", "insort", "insort_left"]),
    }
)
"""Modules and what may be used of them: nothing that reads attributes or evaluates text."""
NAMES = frozenset(dir(builtins)) - frozenset(
    {
        "__import__", "breakpoint", "compile", "delattr", "dir", "eval", "exec", "exit", "getattr",
        "globals", "help", "input", "locals", "memoryview", "open", "quit", "setattr", "super",
        "vars", "copyright", "credits", "license", "__build_class__", "__debug__", "__doc__",
        "__loader__", "__name__", "__package__", "__spec__",
    }
)  # fmt: skip
METHODS = frozenset(
    name
    for kind in (
        str, bytes, list, dict, set, frozenset, tuple, int, float, complex, deque, Counter,
        defaultdict, re.Match, re.Pattern,
    )
    for name in dir(kind)
    # format() reads attributes that its text names.
    if not name.startswith("_") and name not in ("format", "format_map")
)  # fmt: skip
_NEVER = re.compile(r"(gi|f|tb|cr|ag|co)_|format$|format_map$|mro$")
"""Attributes that lead to frames, code or classes, whoever claims to have made them."""
_REFUSED = (
    ast.Global,
    ast.Nonlocal,
    ast.AsyncFunctionDef,
    ast.Await,
    ast.AsyncFor,
    ast.AsyncWith,
    ast.MatchClass,
)

_CHILD = """
import resource, sys
resource.setrlimit(resource.RLIMIT_CPU, ({seconds}, {seconds}))
resource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}))
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))
source = sys.stdin.read()
exec(compile(source, "answer", "exec"), {{"__name__": "answer"}})
"""


def runs(code: str, then: str) -> bool:
    """Say whether ``code`` may run at all, and runs with ``then`` after it without an error.

    ``then`` comes from whoever wrote the test set and is held to the same lists.
    """
    source = f"{code}\n\n{then}\n"
    if len(source) > LONGEST or not allowed(source):
        return False
    child = _CHILD.format(seconds=SECONDS, memory=MEMORY)
    with tempfile.TemporaryDirectory() as folder:
        try:
            ran = subprocess.run(
                [sys.executable, "-I", "-S", "-c", child],
                input=source.encode(), cwd=folder, env={}, capture_output=True,
                timeout=SECONDS + 2, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return False
    return ran.returncode == 0


def allowed(source: str) -> bool:
    """Say whether a program uses nothing but what is on the lists."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    own = _own_names(tree)
    imported = {
        alias.asname or alias.name: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    # A name is a module or something of the program's own, never both.
    if own & imported.keys():
        return False
    # A module is only ever asked for what it has: it is no value that could be called otherwise.
    asked = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in imported
    }
    return all(id(node) in asked or _may(node, own, imported) for node in ast.walk(tree))


def _may(node: ast.AST, own: set[str], imported: Imported) -> bool:
    if isinstance(node, _REFUSED):
        return False
    for kind, rule in _RULES:
        if isinstance(node, kind):
            return rule(node, own, imported)
    return not any(_is_hidden(name) for name in _strings(node))


def _attribute(node: ast.Attribute, own: set[str], imported: Imported) -> bool:
    if _is_hidden(node.attr):
        return False
    if isinstance(node.value, ast.Name) and node.value.id in imported:
        return node.attr in MODULES.get(imported[node.value.id], ())
    return node.attr in METHODS or (node.attr in own and not _NEVER.match(node.attr))


def _import(node: ast.Import, _own: set[str], _imported: Imported) -> bool:
    return all(alias.name in MODULES and not _is_hidden(alias.asname or "") for alias in node.names)


def _import_from(node: ast.ImportFrom, _own: set[str], _imported: Imported) -> bool:
    wanted = {alias.name for alias in node.names}
    return node.level == 0 and wanted <= MODULES.get(node.module or "", frozenset())


def _name(node: ast.Name, own: set[str], imported: Imported) -> bool:
    known = node.id in own or node.id in NAMES
    return known and node.id not in imported and not _is_hidden(node.id)


_RULES: tuple[tuple[type[ast.AST], Callable[..., bool]], ...] = (
    (ast.Attribute, _attribute),
    (ast.Import, _import),
    (ast.ImportFrom, _import_from),
    (ast.Name, _name),
)


def _own_names(tree: ast.AST) -> set[str]:
    """Return the names a program gives itself, attributes of its own classes included."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.ImportFrom):
            found.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            found.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
    # A program does not get a name back by giving it away.
    return found - (frozenset(dir(builtins)) - NAMES)


def _strings(node: ast.AST) -> list[str]:
    """Return names that stand in a node as text: of functions, arguments, keywords, patterns."""
    values = [getattr(node, field, None) for field in ("name", "arg", "attr", "rest", "kwd_attrs")]
    return [value for value in values if isinstance(value, str)]


def _is_hidden(name: str) -> bool:
    # A single underscore is a name for what nobody needs; __init__ makes classes possible.
    return name.startswith("_") and name not in ("_", "__init__")
