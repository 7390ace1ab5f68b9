"""Which check is for which kind of file: one table. A check reads one file, and runs nothing of it.

A check yields findings, and raises ``Invalid`` when the file is no sound file of its kind at all.
"""

import ast
import mmap
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

import msgspec

from freehold.errors import Invalid
from freehold.models import gguf, onnx, safetensors, strict_json
from freehold.models.protobuf import BYTES, Budget, fields
from freehold.models.scan import opcodes
from freehold.models.scan.finding import Finding
from freehold.models.scan.kind import EXECUTES, HEAD, TAIL, Kind, ends_as_zip, kind_of
from freehold.models.scan.sandbox import LONGEST_TEMPLATE
from freehold.models.scan.template import looks_like_one

LONGEST_TEXT = 64 * 1024 * 1024
WHOLE = 4 * 1024 * 1024
"""Bytes of JSON that are read as Python values; of longer files only what is not a vocabulary."""
MOST_TEMPLATES = 64
NEEDS_OPINION: frozenset[Kind] = frozenset({"unknown", "numbers"})
"""Kinds that our own reading does not settle."""
_RANKED = re.compile(rb"([A-Za-z0-9+/]+=* \d+\r?\n){2}")
"""How a vocabulary begins that is a text: pieces in base64, each with its rank."""
_PLAIN_NUMBERS = re.compile(r"[<>|=]?[?biufc]\d{0,2}")


class Item(msgspec.Struct, kw_only=True):
    """A file to check. ``templates`` is filled by its check: (what it is called, its text).

    They are judged and rendered later, where it does no harm how long that takes.
    """

    name: str
    path: Path
    size: int
    head: bytes
    tail: bytes
    kind: Kind
    title: str
    templates: list[tuple[str, str]] = []


def item(name: str, path: Path) -> Item:
    """Look at a file from outside."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEAD)
        file.seek(max(0, size - TAIL))
        tail = file.read(TAIL)
    kind, title = kind_of(name, head)
    return Item(name=name, path=path, size=size, head=head, tail=tail, kind=kind, title=title)


def examine(it: Item) -> Iterator[Finding]:
    """Yield what is wrong with a file by our own reading of it."""
    running = list(executes(it))
    yield from running
    if it.kind in EXECUTES or any(each.rule == "executes.pickle" for each in running):
        return
    try:
        yield from CHECKS[it.kind](it)
    except Invalid as error:
        raise Invalid(error.code, f"{it.name}: {error.message}", param="source") from error


def executes(it: Item) -> Iterator[Finding]:
    """Yield what of a file would be run by whoever loads it: by its kind, or hidden in it."""
    if it.kind in EXECUTES:
        yield found(it, f"executes.{it.kind}", f"it is {it.title}: {EXECUTES[it.kind]}")
        return
    if ends_as_zip(it.tail):
        yield found(it, "executes.archive", "a zip archive is hidden at its end")
    if it.kind not in ("gguf", "safetensors"):
        called = _called(it)
        if called is not None:
            yield found(it, "executes.pickle", f"it is a Python pickle that calls {called!r:.120}")


def found(it: Item, rule: str, says: str, by: str = "freehold") -> Finding:
    """Return a finding about a file."""
    return Finding(rule=rule, file=it.name, says=says, by=by)


def _gguf(it: Item) -> Iterator[Finding]:
    header = gguf.read_header(it.path)
    for key, value in header.metadata.items():
        yield from _templates(it, key, value)


def _safetensors(it: Item) -> Iterator[Finding]:
    header = safetensors.read_header(it.path)
    yield from _templates(it, "__metadata__", header.metadata)


def _onnx(it: Item) -> Iterator[Finding]:
    graph = onnx.read_graph(it.path)
    yield from (found(it, rule, says) for rule, says in onnx.objections(graph))


def _json(it: Item) -> Iterator[Finding]:
    data = _text(it)
    if it.size <= WHOLE:
        value = strict_json.decode(data.encode(), "it", WHOLE)
        yield from _code_elsewhere(it, value)
        yield from _templates(it, "", value)
        return
    try:
        parts = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError) as error:
        raise Invalid(
            "invalid.json_file", f"cannot use this model file: not sound JSON: {error}"
        ) from error
    for name, raw in parts.items():
        if len(raw) > WHOLE and "template" in name:
            yield found(it, "template.code", f"the template {name[:80]} is over 4 MiB long")
        if len(raw) <= WHOLE:
            value = strict_json.decode(bytes(raw), name, WHOLE)
            yield from _code_elsewhere(it, {name: value})
            yield from _templates(it, name, value)


def _code_elsewhere(it: Item, value: Any) -> Iterator[Finding]:
    """Find code that loaders would bring from another place, or pick by a name that is told them.

    Code among the files themselves is found as such.
    """
    if isinstance(value, dict):
        named = value.get("auto_map")
        for each in named.values() if isinstance(named, dict) else [named]:
            for text in each if isinstance(each, list) else [each]:
                if isinstance(text, str) and "--" in text:
                    yield found(it, "executes.elsewhere", f"it takes code from {text!r:.100}")
    elif isinstance(value, list) and PurePosixPath(it.name).name == "modules.json":
        for each in value:
            kind = each.get("type") if isinstance(each, dict) else None
            if isinstance(kind, str) and not kind.startswith("sentence_transformers."):
                yield found(it, "executes.elsewhere", f"it wants {kind!r:.100} to be imported")


def _template(it: Item) -> Iterator[Finding]:
    return _judge(it, _text(it), "")


def _plain_text(it: Item) -> Iterator[Finding]:
    _text(it)
    return iter(())


def _sentencepiece(it: Item) -> Iterator[Finding]:
    """A vocabulary: pieces (1), what it was trained with (2), normalisers (3, 5), tests."""
    if it.size > LONGEST_TEXT:
        raise Invalid("invalid.tokenizer", "cannot use this tokenizer: it is over 64 MiB long")
    data = it.path.read_bytes()
    if _RANKED.match(data):
        yield from _plain_text(it)
        return
    pieces = 0
    for field, wire, _, _ in fields(data, 0, len(data), Budget()):
        if not 1 <= field <= 5 or wire != BYTES:
            yield found(it, "unknown.part", f"it holds a part {field} that no tokenizer has")
            return
        pieces += field == 1
    if not pieces:
        raise Invalid("invalid.tokenizer", "cannot use this tokenizer: it holds no vocabulary")


def _numbers(it: Item) -> Iterator[Finding]:
    """A NumPy array: of numbers it is one, of objects it is a pickle."""
    wide = it.head[6:7] != b"\x01"
    begin = 12 if wide else 10
    length = int.from_bytes(it.head[8:begin], "little")
    try:
        told = ast.literal_eval(it.head[begin : begin + length].decode("latin-1").strip())
        kind = told["descr"]
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise Invalid("invalid.numbers", "cannot use this array: its header is wrong") from error
    if not isinstance(kind, str) or not _PLAIN_NUMBERS.fullmatch(kind):
        yield found(it, "executes.pickle", "it is an array of Python objects, which are a pickle")


def _nothing(_it: Item) -> Iterator[Finding]:
    return iter(())


CHECKS: Mapping[str, Callable[[Item], Iterable[Finding]]] = MappingProxyType(
    {
        "gguf": _gguf,
        "safetensors": _safetensors,
        "onnx": _onnx,
        "json": _json,
        "template": _template,
        "text": _plain_text,
        "sentencepiece": _sentencepiece,
        "numbers": _numbers,
        "picture": _nothing,
        "unknown": _nothing,
    }
)
"""A kind of file that is not refused as it is, and what reads it."""


def _templates(it: Item, key: str, value: Any) -> Iterator[Finding]:
    """Judge every text in a value that is or could become a template, under whatever name."""
    waiting: list[tuple[str, Any]] = [(key, value)]
    while waiting:
        name, current = waiting.pop()
        if isinstance(current, str):
            if looks_like_one(current) and (len(current) > 8 or "template" in name):
                yield from _judge(it, current, name)
        elif isinstance(current, dict):
            waiting.extend((str(inner), each) for inner, each in current.items())
        elif isinstance(current, list):
            waiting.extend((name, each) for each in current)


def _judge(it: Item, text: str, name: str) -> Iterator[Finding]:
    where = f"the template {name[-80:]}" if name else "the template"
    if len(it.templates) >= MOST_TEMPLATES:
        yield found(it, "template.code", f"{where} is one of over {MOST_TEMPLATES}")
    elif len(text) > LONGEST_TEMPLATE:
        yield found(it, "template.code", f"{where} is over {LONGEST_TEMPLATE >> 10} KiB long")
    else:
        it.templates.append((where, text))


def _text(it: Item) -> str:
    if it.size > LONGEST_TEXT:
        raise Invalid("invalid.text", "cannot use this model file: it is over 64 MiB long")
    try:
        text = it.path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise Invalid("invalid.text", "cannot use this model file: it is not UTF-8") from error
    if "\0" in text:
        raise Invalid("invalid.text", "cannot use this model file: a text that holds zero bytes")
    return text


def _called(it: Item) -> str | None:
    if not it.size:
        return None
    with it.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return opcodes.runs(data)
