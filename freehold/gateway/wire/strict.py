"""What a JSON body may not be although a lenient parser takes it.

Two parsers that read one body differently are how a check is passed with one meaning and an engine
asked with another: a name that stands twice, bytes that are no UTF-8. Bodies that are deeper than
any request ever is are there to hurt the next parser.
"""

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from freehold.errors import Invalid

DEEPEST = 100
"""Objects and lists in one another."""

LONGEST = 256 * 1024
"""Bytes of a body that is read name by name where its shape tells nothing."""

_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ALIKE = bytes.maketrans(b"{}", b"[]")
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_OBJECTS = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])

Fields = Mapping[str, msgspec.Raw]


def check(body: bytes, fields: Fields) -> None:
    """Raise ``Invalid`` for a body that is valid JSON, ``fields``, but not to be trusted.

    Names must be single at the top and in each of the ``messages``.
    """
    if not body.isascii():
        try:
            body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Invalid("invalid.json", f"the body is not UTF-8: {error}") from error
    if body.count(b"[") + body.count(b"{") > DEEPEST:
        _check_depth(body)
    if not _is_single(body.strip(), fields):
        compact = msgspec.json.format(body, indent=-1)
        if not _is_single(compact, _FIELDS.decode(compact)):
            _check_names(body)


def check_everywhere(body: bytes) -> None:
    """Raise ``Invalid`` where a name stands twice in any object; for small bodies only."""
    if len(body) <= LONGEST:
        json.loads(body, object_pairs_hook=lambda pairs: _check_pairs(tuple(pairs)))


def _check_pairs(pairs: tuple[tuple[str, Any], ...]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        text = f"{twice!r:.80} stands twice in one object"
        raise Invalid("invalid.json", text, param=twice[:80])


def _is_single(text: bytes, fields: Fields) -> bool:
    """Say whether ``text`` is just what its fields come to, written without blanks.

    Then no name is there twice; where names are escaped nothing is said by that.
    """
    if msgspec.json.encode(fields) != text:
        return False
    messages = fields.get("messages")
    return messages is None or msgspec.json.encode(_OBJECTS.decode(messages)) == bytes(messages)


def _check_names(body: bytes) -> None:
    if len(body) > LONGEST:
        raise Invalid(
            "invalid.json",
            "a name stands twice in one object, or is written with escapes in a body over "
            f"{LONGEST} bytes",
        )
    # Objects come as tuples of pairs, which no JSON list can be.
    top: Any = json.loads(body, object_pairs_hook=tuple)
    for pairs in (top, *_messages(top)):
        _check_pairs(pairs)


def _messages(top: tuple[tuple[str, Any], ...]) -> list[tuple[tuple[str, Any], ...]]:
    return [
        message
        for name, value in top
        if name == "messages" and isinstance(value, list)
        for message in value
        if isinstance(message, tuple)
    ]


def _check_depth(body: bytes) -> None:
    # Outside of strings is every second piece between quotes, once escapes are out of the way.
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in body else body
    brackets = b"".join(plain.split(b'"')[::2]).translate(_ALIKE, _NOT_BRACKETS)
    for _ in range(DEEPEST):
        if not brackets:
            return
        brackets = brackets.replace(b"[]", b"")
    if brackets:
        raise Invalid("invalid.json", f"the body is more than {DEEPEST} levels deep")
