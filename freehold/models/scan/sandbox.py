"""Where chat templates are read and rendered: Jinja's immutable sandbox, with what they expect.

The extensions and globals are those that templates of published models are written for. Whoever
renders a stranger's template does it in a process with limits (``confined``): the sandbox keeps it
from Python's inside, not from taking all memory.
"""

import json
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

LONGEST_TEMPLATE = 512 * 1024
LONGEST_OUTPUT = 4 * 1024 * 1024


class Raised(TemplateError):
    """The template refused the conversation by ``raise_exception``."""


class Generation(Extension):
    """``{% generation %}`` marks what the model writes; it renders as its body."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own notation

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return the nodes between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def sandbox() -> ImmutableSandboxedEnvironment:
    """Return a fresh environment; templates can change nothing that is given to them."""
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, LoopControlExtension]
    )
    made.filters["tojson"] = _to_json
    made.filters["from_json"] = json.loads
    made.globals["raise_exception"] = _raise
    made.globals["strftime_now"] = _strftime_now
    return made


def render(text: str, values: dict[str, Any]) -> str:
    """Render a template, at most ``LONGEST_OUTPUT`` characters of it.

    Raises what Jinja does, ``SecurityError`` among it.
    """
    pieces, size = [], 0
    for piece in sandbox().from_string(text).generate(values):
        size += len(piece)
        if size > LONGEST_OUTPUT:
            raise MemoryError
        pieces.append(piece)
    return "".join(pieces)


def _to_json(value: Any, indent: int | None = None, **_how: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(message: object = "") -> NoReturn:
    raise Raised(str(message)[:500])


def _strftime_now(_form: str) -> str:
    return "1 January 2026"  # no clock here: a template shall not behave by the day
