"""What a registry answers: bytes of bounded length, sizes, and why it refuses."""

import json
from typing import Any

from pyreqwest.exceptions import PyreqwestError
from pyreqwest.response import SyncResponse

from freehold.errors import Invalid

ANSWER_BYTES = 64 * 1024


def read(response: SyncResponse, limit: int) -> bytes:
    """Return the body; ``Invalid`` when it is longer than ``limit`` bytes."""
    data = bytearray()
    while (piece := response.body_reader.read_chunk()) is not None:
        data += piece.to_bytes()
        if len(data) > limit:
            raise Invalid("invalid.size", f"the registry sends more than {limit} bytes: refused")
    return bytes(data)


def told_size(response: SyncResponse) -> int | None:
    """Return how many bytes a server says that a blob has."""
    text = response.get_header("content-length")
    if response.status == 206:
        text = (response.get_header("content-range") or "").rpartition("/")[2]
    return int(text) if text and text.isascii() and text.isdigit() else None


def explanation(response: SyncResponse) -> str:
    """Return what a registry says of its refusal, as plain text of bounded length."""
    try:
        errors = document_in(read(response, ANSWER_BYTES)).get("errors")
        found = errors[0] if isinstance(errors, list) and errors else {}
        text = f"{found.get('code')}: {found.get('message')}"
    except (Invalid, PyreqwestError, AttributeError):
        text = f"status {response.status}"
    return "".join(letter for letter in text if letter.isprintable())[:200]


def document_in(data: bytes) -> dict[str, Any]:
    """Return a JSON object, an empty one where there is none."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
