"""What may stand in a chat template: a table of what templates need, and nothing beside it. Pure.

A template is read to its tree, never run here. Everything that is named (filters, tests, functions,
methods) is on a list; no name with an underscore in front is reached for, written out or put
together from pieces.
"""

import re
from collections.abc import Iterator
from string import Formatter

from jinja2 import TemplateError, nodes

from freehold.models.scan.sandbox import LONGEST_TEMPLATE, sandbox
from freehold.models.scan.spelled import Spelling


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FILTERS = _words(
    "abs batch capitalize count d default dictsort e escape first float forceescape from_json "
    "groupby indent int items join last length list lower map max min reject rejectattr replace "
    "reverse round safe select selectattr slice sort string striptags sum title tojson trim "
    "truncate unique upper urlencode wordcount"
)
TESTS = _words(
    "boolean callable defined divisibleby eq equalto even false filter float ge gt greaterthan in "
    "integer iterable le lessthan lower lt mapping ne none number odd sameas sequence string test "
    "true undefined upper"
)
FUNCTIONS = _words("dict namespace raise_exception range strftime_now caller")
METHODS = _words(
    "append capitalize count cycle endswith extend find get index insert items isalpha isdigit "
    "isnumeric isspace join keys lower lstrip partition pop removeprefix removesuffix replace "
    "rfind rpartition rsplit rstrip split splitlines startswith strip title update upper values"
)
OUTSIDE = _words(
    "self cycler joiner lipsum request config session g app url_for get_flashed_messages os sys "
    "environ builtins varargs kwargs"
)
"""Names that mean nothing to a chat template, and the inside of a program to an attacker."""
INSIDE = _words(
    "mro func_globals func_code gi_frame gi_code cr_frame cr_code ag_frame ag_code f_globals "
    "f_locals f_builtins f_back f_code tb_frame tb_next co_code im_func im_class format_map"
)
LARGEST_RANGE = 1_000_000
_STATEMENTS = (
    nodes.Import, nodes.FromImport, nodes.Include, nodes.Extends, nodes.Block,
    nodes.EvalContextModifier, nodes.ScopedEvalContextModifier,
)  # fmt: skip
_WIDE = re.compile(r"%[-+ #0]*\d{5,}[a-z]|\{\w*:[^{}]{0,4}\d{5,}")
_MARKS = re.compile(r"\{\{|\{%")


def looks_like_one(text: str) -> bool:
    """Say whether a text holds Jinja's marks."""
    return _MARKS.search(text) is not None


def objections(text: str) -> list[str]:
    """Return what stands in the way of a template, each once; an empty list when nothing does."""
    if len(text) > LONGEST_TEMPLATE:
        return [f"is over {LONGEST_TEMPLATE >> 10} KiB long"]
    try:
        tree = sandbox().parse(text)
        return sorted(set(_walk(tree)), key=lambda said: ("inner" not in said, said))[:20]
    except TemplateError as error:
        return [f"cannot be read: {error}"[:200]]
    except (RecursionError, ValueError, OverflowError):
        return ["cannot be read: it is nested too deeply, or holds an impossible number"]


def _walk(tree: nodes.Template) -> Iterator[str]:
    spelling = Spelling(tree)
    macros = {macro.name for macro in tree.find_all(nodes.Macro)}
    for node in _all(tree):
        for hidden in spelling.hidden(node):
            yield f"spells the inner name {hidden!r:.60}"
        yield from _object(node, macros, spelling)


def _object(node: nodes.Node, macros: set[str], spelling: Spelling) -> Iterator[str]:
    if isinstance(node, _STATEMENTS):
        yield f"has a statement that reaches outside: {type(node).__name__.lower()}"
    elif isinstance(node, (nodes.Name, nodes.Getattr)):
        yield from _reach(node)
    elif isinstance(node, nodes.Getitem):
        yield from _subscript(node.arg, spelling)
    elif isinstance(node, nodes.Filter):
        yield from _filter(node, spelling)
    elif isinstance(node, nodes.Call):
        yield from _call(node, macros)
    elif isinstance(node, nodes.Test) and node.name not in TESTS:
        yield f"uses the unknown test {node.name!r:.60}"
    elif isinstance(node, nodes.Const):
        yield from _constant(node.value)
    elif isinstance(node, nodes.Pow):
        yield "raises numbers to powers, which takes any time"


def _constant(value: object) -> Iterator[str]:
    """Object to what makes a text or a loop of any length, wherever it stands."""
    if isinstance(value, int) and abs(value) > LARGEST_RANGE:
        yield f"holds the number {value:.3g}"
    elif isinstance(value, str) and (found := _WIDE.search(value)):
        yield f"writes a value as wide as {found[0]!r:.40} says"


def _reach(node: nodes.Name | nodes.Getattr) -> Iterator[str]:
    if isinstance(node, nodes.Getattr):
        if node.attr.startswith("_") or node.attr in INSIDE:
            yield f"reaches for the inner attribute {node.attr!r:.60}"
    elif node.name in OUTSIDE or node.name.startswith("__"):
        yield f"reaches for {node.name}"


def _subscript(arg: nodes.Expr, spelling: Spelling) -> Iterator[str]:
    if isinstance(arg, nodes.Const) and isinstance(arg.value, str):
        if arg.value.startswith("_") or arg.value in INSIDE:
            yield f"reaches for the inner attribute {arg.value!r:.60}"
    elif spelling.is_put_together(arg):
        yield "reaches for a name that it puts together"


def _filter(node: nodes.Filter, spelling: Spelling) -> Iterator[str]:
    if node.name == "attr":
        yield "reaches for attributes by name: attr"
    elif node.name not in FILTERS:
        yield f"uses the unknown filter {node.name!r:.60}"
    if node.name in ("map", "selectattr", "rejectattr", "groupby", "sort", "sum", "unique"):
        named = [*node.args[:1], *(k.value for k in node.kwargs if k.key == "attribute")]
        for each in named:
            if isinstance(each, nodes.Const) and isinstance(each.value, str):
                parts = each.value.split(".")
                if node.name == "map" and each.value not in FILTERS and each in node.args:
                    yield f"uses the unknown filter {each.value!r:.60}"
                if any(part.startswith("_") or part in INSIDE for part in parts):
                    yield f"reaches for the inner attribute {each.value!r:.60}"
            elif spelling.is_put_together(each):
                yield "reaches for a name that it puts together"


def _call(node: nodes.Call, macros: set[str]) -> Iterator[str]:
    called = node.node
    if isinstance(called, nodes.Name):
        if called.name not in FUNCTIONS and called.name not in macros:
            yield f"calls the unknown function {called.name!r:.60}"
        if called.name == "range":
            yield from _range(node)
    elif isinstance(called, nodes.Getattr):
        if called.attr == "format" and not _is_plain_form(called.node):
            yield "formats text by a form that it computes: format"
        elif called.attr != "format" and called.attr not in METHODS:
            yield f"calls the unknown method {called.attr!r:.60}"
    else:
        yield "calls something that it computes"


def _is_plain_form(node: nodes.Expr) -> bool:
    """Say whether a form is written out, and puts values in without looking into them."""
    if not isinstance(node, nodes.Const) or not isinstance(node.value, str):
        return False
    try:
        places = list(Formatter().parse(node.value))
    except ValueError:
        return False
    return all(
        (not name or name.isalnum()) and "{" not in (form or "") for _, name, form, _ in places
    )


def _range(node: nodes.Call) -> Iterator[str]:
    for bound in node.args:
        if isinstance(bound, nodes.Const) and isinstance(bound.value, int):
            if abs(bound.value) > LARGEST_RANGE:
                yield f"counts to {bound.value}"
        elif isinstance(bound, (nodes.Mul, nodes.Pow)):
            yield "counts to a product"


def _all(node: nodes.Node) -> Iterator[nodes.Node]:
    """Yield every node below without going as deep as the tree does."""
    waiting = [node]
    while waiting:
        current = waiting.pop()
        yield current
        waiting.extend(current.iter_child_nodes())
