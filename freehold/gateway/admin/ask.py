"""What a handler of administration is asked, and how it is declared."""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec

from freehold.control.control import Control
from freehold.errors import Invalid
from freehold.gateway.wire import strict
from freehold.identity.keys import Principal
from freehold.models.catalog import explain
from freehold.record.entry import Entry

T = TypeVar("T")


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One request for administration, whichever way it came."""

    principal: Principal
    params: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes
    entry: Entry | None = None

    def about(self, text: str) -> None:
        """Say in the record what this is about, in words that hold no secret."""
        if self.entry is not None:
            self.entry.subject = text

    def read(self, kind: type[T]) -> T:
        """Return the checked body; ``Invalid`` says where it is wrong."""
        try:
            found = msgspec.json.decode(self.body or b"{}", type=kind)
            strict.check_everywhere(self.body or b"{}")
            return found
        except msgspec.ValidationError as error:
            raise Invalid("invalid.request", f"the body is wrong: {explain(error)}") from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Invalid("invalid.json", f"the body is not valid JSON: {error}") from error

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """Return a number of the query, held to its limits."""
        text = self.query.get(name)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError as error:
            raise Invalid("invalid.request", f"{name} must be a number", param=name) from error
        if not low <= value <= high:
            raise Invalid("invalid.request", f"{name} must be from {low:g} to {high:g}", param=name)
        return value


Handler = Callable[[Ask, Control], Awaitable[Any]]


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A body sent to a route; unknown fields are refused."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One route. ``takes`` and ``gives`` are the types of the bodies; ``query`` names to texts."""

    method: str
    path: str
    permission: str
    summary: str
    handler: Handler
    takes: Any = None
    gives: Any = None
    status: int = 200
    query: Mapping[str, str] = {}

    def match(self, path: str) -> dict[str, str] | None:
        """Return the path's parameters when it is of this route."""
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", self.path)
        found = re.fullmatch(pattern, path)
        return found.groupdict() if found else None


def read_query(text: str) -> dict[str, str]:
    """Return the parameters of a query string; the last of a name counts."""
    try:
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=50))
    except ValueError as error:
        raise Invalid("invalid.request", f"the query is wrong: {error}") from error


def version_number(text: str) -> int:
    """Return a version's number from a path."""
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise Invalid("invalid.version", f"{text!r:.40} is no version number")
    return int(text)
