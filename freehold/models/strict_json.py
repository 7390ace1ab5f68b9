"""JSON of files that come from elsewhere: bounded, no name twice, no numbers that are none."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from freehold.errors import Invalid

LONGEST = 16 * 1024 * 1024
"""Bytes of a document: Python's form of it takes several times as much."""
MOST_VALUES = 2_000_000
"""Marks that begin a value: ``[]`` takes two bytes here and eighty in Python."""


def decode(data: bytes, what: str, longest: int = LONGEST) -> Any:
    """Return the value of a JSON document; ``Invalid`` when two readers could differ about it.

    ``what`` names the document in errors.
    """
    if len(data) > longest:
        raise _wrong(what, f"is over {longest >> 10} KiB long")
    if sum(map(data.count, (b"[", b"{", b","))) > MOST_VALUES:
        raise _wrong(what, f"holds over {MOST_VALUES} values")
    try:
        return json.loads(data.decode(), object_pairs_hook=_once, parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise _wrong(what, "is not UTF-8") from error
    except RecursionError as error:
        raise _wrong(what, "is nested too deeply") from error
    except ValueError as error:
        raise _wrong(what, f"is not sound JSON: {error}") from error


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        double = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the name {double!r:.80} stands there twice")
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def _wrong(what: str, text: str) -> Invalid:
    return Invalid("invalid.json_file", f"cannot use this model file: {what} {text}")
