"""Names that a template spells in pieces: ``'__cl' ~ 'ass__'``, by way of variables or not. Pure.

Constants are followed through sets, concatenation, repetition and the filters that change text, as
far as that can be known without running anything. What cannot be known is at least marked: a
variable that is ever put together from texts names nothing.
"""

import re
from collections.abc import Callable, Iterator

from jinja2 import nodes

_INNER = re.compile(r"__[a-zA-Z]\w*__|^__\w+$")
_LONGEST = 4096
_MOST = 16
_Change = Callable[[str], str]
_TEXT: dict[str, _Change] = {
    "lower": str.lower,
    "upper": str.upper,
    "trim": str.strip,
    "strip": str.strip,
    "reverse": lambda text: text[::-1],
    "string": str,
    "title": str.title,
    "capitalize": str.capitalize,
}
_BUILDERS = frozenset(
    (*_TEXT, "from_json", "format", "join", "replace", "truncate", "map", "first", "last")
)


class Spelling:
    """What the variables of a template can hold, as far as its text says."""

    def __init__(self, tree: nodes.Template) -> None:
        self._known: dict[str, set[str]] = {}
        self._built: set[str] = set()
        sets: list[nodes.Assign | nodes.AssignBlock | nodes.For] = [
            *tree.find_all(nodes.Assign),
            *tree.find_all(nodes.AssignBlock),
            *tree.find_all(nodes.For),
        ]
        for _ in range(4):  # by way of four variables at most
            for each in sets:
                self._learn(each)

    def hidden(self, node: nodes.Node) -> Iterator[str]:
        """Yield the inner names that a node stands for."""
        if isinstance(node, (nodes.Const, nodes.Concat, nodes.Add, nodes.Mul, nodes.Filter,
                             nodes.Call, nodes.Getitem, nodes.Mod)):  # fmt: skip
            for text in self.texts(node):
                if found := _INNER.search(text):
                    yield found[0]

    def texts(self, node: nodes.Node, depth: int = 0) -> set[str]:
        """Return the texts that an expression may stand for; empty when that is not known."""
        if depth > 40:
            return set()
        found = self._texts(node, depth)
        return {text[:_LONGEST] for text in sorted(found)[:_MOST]}

    def _texts(self, node: nodes.Node, depth: int) -> set[str]:
        if isinstance(node, nodes.Const):
            return {node.value} if isinstance(node.value, str) else set()
        if isinstance(node, (nodes.Name, nodes.Getattr, nodes.NSRef)):
            return self._known.get(_path(node), set())
        if isinstance(node, nodes.Concat):
            return self._joined(node.nodes, "", depth)
        if isinstance(node, nodes.BinExpr):
            return self._computed(node, depth)
        if isinstance(node, nodes.Filter):
            return self._filtered(node, depth)
        if isinstance(node, nodes.Call):
            return self._called(node, depth)
        return self._sliced(node, depth) if isinstance(node, nodes.Getitem) else set()

    def _computed(self, node: nodes.BinExpr, depth: int) -> set[str]:
        if isinstance(node, nodes.Add):
            return self._joined([node.left, node.right], "", depth)
        if isinstance(node, nodes.Mul):
            return self._repeated(node, depth)
        if isinstance(node, nodes.Mod):
            right = self.texts(node.right, depth + 1)
            return {_put_in(left, [r]) for left in self.texts(node.left, depth + 1) for r in right}
        return set()

    def is_put_together(self, node: nodes.Node) -> bool:
        """Say whether an expression makes a text of several, or stands for one so made."""
        if isinstance(node, (nodes.Name, nodes.Getattr)):
            return _path(node) in self._built
        if isinstance(node, (nodes.Concat, nodes.Mod)):
            return True
        if isinstance(node, nodes.Add):
            sides = (node.left, node.right)
            return not any(_is_number(side) for side in sides) or any(map(self._marked, sides))
        if isinstance(node, nodes.Mul):
            return bool(self.texts(node.left) or self.texts(node.right))
        if isinstance(node, nodes.Filter):
            return node.name in _BUILDERS
        if isinstance(node, nodes.CondExpr):
            sides = (node.expr1, node.expr2 or node.expr1)
            return any(map(self.is_put_together, sides))
        return isinstance(node, nodes.Call)

    def _marked(self, node: nodes.Node) -> bool:
        return not isinstance(node, nodes.Call) and self.is_put_together(node)

    def _learn(self, node: nodes.Assign | nodes.AssignBlock | nodes.For) -> None:
        if isinstance(node, nodes.For):
            if isinstance(node.iter, nodes.List) and isinstance(node.target, nodes.Name):
                for item in node.iter.items:
                    self._add(node.target.name, self.texts(item))
            return
        target = _path(node.target)
        if isinstance(node, nodes.AssignBlock):
            self._built.add(target)
            written = [
                each.data
                for output in node.find_all(nodes.Output)
                for each in output.nodes
                if isinstance(each, nodes.TemplateData)
            ]
            self._add(target, {"".join(written)})
            return
        self._add(target, self.texts(node.node))
        reads = isinstance(node.node, (nodes.Concat, nodes.Add, nodes.Mod, nodes.Name,
                                       nodes.Getattr, nodes.CondExpr))  # fmt: skip
        joins = isinstance(node.node, nodes.Filter) and node.node.name in ("join", "format")
        if (reads and self.is_put_together(node.node)) or joins:
            self._built.add(target)

    def _add(self, name: str, texts: set[str]) -> None:
        known = self._known.setdefault(name, set())
        known.update(list(texts)[: _MOST - len(known)])

    def _joined(self, parts: list[nodes.Expr], between: str, depth: int) -> set[str]:
        made = {""}
        for number, part in enumerate(parts):
            texts = self.texts(part, depth + 1)
            if not texts:
                return set()
            glue = between if number else ""
            made = {
                (one + glue + other)[:_LONGEST] for one in sorted(made)[:_MOST] for other in texts
            }
            if all(len(each) == _LONGEST for each in made):  # what follows is not looked at
                return made
        return made

    def _repeated(self, node: nodes.Mul, depth: int) -> set[str]:
        sides = ((node.left, node.right), (node.right, node.left))
        return {
            text * min(times.value, 64)
            for text_of, times in sides
            if isinstance(times, nodes.Const) and isinstance(times.value, int)
            for text in self.texts(text_of, depth + 1)
        }

    def _filtered(self, node: nodes.Filter, depth: int) -> set[str]:
        if node.node is None:
            return set()
        if node.name == "join" and isinstance(node.node, (nodes.List, nodes.Tuple)):
            glue = self.texts(node.args[0], depth + 1) if node.args else {""}
            return self._joined(node.node.items, min(glue, default=""), depth)
        texts = self.texts(node.node, depth + 1)
        if node.name == "replace" and len(node.args) >= 2:
            return self._replaced(texts, node.args, depth)
        if node.name == "format" and node.args:
            values = [min(self.texts(each, depth + 1), default="") for each in node.args]
            return {_put_in(text, values) for text in texts}
        change = _TEXT.get(node.name)
        return {change(text) for text in texts} if change else set()

    def _called(self, node: nodes.Call, depth: int) -> set[str]:
        if not isinstance(node.node, nodes.Getattr):
            return set()
        texts = self.texts(node.node.node, depth + 1)
        if node.node.attr == "replace" and len(node.args) >= 2:
            return self._replaced(texts, node.args, depth)
        if node.node.attr == "join" and node.args and isinstance(node.args[0], nodes.List):
            return self._joined(node.args[0].items, min(texts, default=""), depth)
        change = _TEXT.get(node.node.attr)
        return {change(text) for text in texts} if change else set()

    def _replaced(self, texts: set[str], args: list[nodes.Expr], depth: int) -> set[str]:
        old, new = (self.texts(each, depth + 1) for each in args[:2])
        return {text.replace(o, n) for text in texts for o in old if o for n in new}

    def _sliced(self, node: nodes.Getitem, depth: int) -> set[str]:
        if not isinstance(node.arg, nodes.Slice):
            return set()
        bounds = []
        for each in (node.arg.start, node.arg.stop, node.arg.step):
            value = _number(each)
            if each is not None and value is None:
                return set()
            bounds.append(value)
        if bounds[2] == 0:
            return set()
        return {text[slice(*bounds)] for text in self.texts(node.node, depth + 1)}


def _put_in(text: str, values: list[str]) -> str:
    for value in values:
        text = text.replace("%s", value, 1)
    return text


def _number(node: nodes.Expr | None) -> int | None:
    if isinstance(node, nodes.Neg):
        inner = _number(node.node)
        return None if inner is None else -inner
    if isinstance(node, nodes.Const) and isinstance(node.value, int):
        return int(node.value)
    return None


def _is_number(node: nodes.Expr) -> bool:
    counted = isinstance(node, nodes.Filter) and node.name in ("length", "count", "int")
    return counted or _number(node) is not None


def _path(node: nodes.Node) -> str:
    if isinstance(node, nodes.Name):
        return node.name
    if isinstance(node, nodes.NSRef):
        return f"{node.name}.{node.attr}"
    if isinstance(node, nodes.Getattr) and isinstance(node.node, nodes.Name):
        return f"{node.node.name}.{node.attr}"
    return "?"
