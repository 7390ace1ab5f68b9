"""The registry in a gateway: control says what may be done, the bytes go through here.

What is read goes from its file to the socket; what is written is appended to an upload's file as it
comes. Neither is ever held in memory.
"""

import asyncio
import errno
import fcntl
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO
from urllib.parse import unquote

from freehold.errors import (
    Conflict,
    FreeholdError,
    OutOfRange,
    TooLarge,
    Unavailable,
)
from freehold.gateway.exchange import Exchange, Whole
from freehold.gateway.forward import Answer, ask_control
from freehold.gateway.oci.routes import Operation
from freehold.gateway.oci.steps import (
    ASK,
    CHALLENGE,
    DONE,
    FILE,
    LENGTH,
    LONGEST_IMPORT,
    METHOD,
    START,
    STEP,
    refused,
)
from freehold.gateway.parts import Parts
from freehold.models.oci.manifest import MOST_BYTES

BATCH = 4 * 1024 * 1024
BACK = (
    "content-type", "content-length", "docker-content-digest", "docker-distribution-api-version",
    "docker-upload-uuid", "etag", "link", "location", "oci-filters-applied", "oci-subject",
    "range", "retry-after", "www-authenticate", "x-freehold-request", "x-freehold-version",
)  # fmt: skip


async def relay(exchange: Exchange, operation: Operation, parts: Parts) -> None:
    """Answer a request for the registry; control keeps the record of it."""
    try:
        await _answer(exchange, operation, parts)
    except FreeholdError as error:
        await exchange.finish(refused(error, exchange))


async def _answer(exchange: Exchange, operation: Operation, parts: Parts) -> None:
    kind, method = operation.kind, exchange.method
    if kind == "upload" and method in ("PATCH", "PUT"):
        answer = await _append(exchange, exchange.path, method, parts)
    elif kind == "uploads" and method == "POST" and "digest=" in exchange.query:
        answer = await _whole_upload(exchange, parts)
    else:
        body = await exchange.body(MOST_BYTES) if method in ("PUT", "POST") else b""
        patience = LONGEST_IMPORT + 60 if kind == "manifest" and method == "PUT" else 60.0
        answer = await _ask(exchange, parts, _method(method), exchange.path, body, patience)
    if kind == "blob" and answer.status == 200:
        await _send(exchange, answer)
    else:
        await exchange.finish(_passed_back(exchange, answer))


def _method(method: str) -> str:
    return "GET" if method == "HEAD" else method  # an answer to HEAD is the same without its body


async def _ask(
    exchange: Exchange,
    parts: Parts,
    method: str,
    path: str,
    body: bytes = b"",
    patience: float = 60.0,
    step: str = "",
    method_of: str = "",
) -> Answer:
    also = [(METHOD, method_of or exchange.method), (STEP, step)]
    if (told := exchange.header("content-range")) is not None:
        also.append(("content-range", told))
    return await ask_control(exchange, parts, method, path, body, also=also, patience=patience)


async def _whole_upload(exchange: Exchange, parts: Parts) -> Answer:
    """A blob in one request: begun, written and finished."""
    begun = await _ask(exchange, parts, "POST", exchange.path, step=ASK)
    if begun.status != 202:
        return begun
    return await _append(exchange, begun.headers["location"], "PUT", parts)


async def _append(exchange: Exchange, path: str, method: str, parts: Parts) -> Answer:
    """Write a body to the end of an upload, then have control look at what there is."""
    place = await _ask(exchange, parts, method, path, step=ASK, method_of=method)
    if place.status != 200:
        return place
    file = Path(unquote(place.headers[FILE]))
    start, limit = int(place.headers[START]), int(place.headers[LENGTH])
    _check_room(exchange.header("content-length") or "", file, start, limit)
    await _write(exchange.pieces(), file, start, limit)
    return await _ask(
        exchange, parts, method, path, patience=LONGEST_IMPORT, step=DONE, method_of=method
    )


def _check_room(length: str, path: Path, start: int, limit: int) -> None:
    """Refuse before it is sent what could not be kept."""
    told = int(length) if length.isascii() and length.isdigit() else 0
    if start + told > limit:
        raise TooLarge("invalid.size", f"a blob is at most {limit} bytes: registry.blob_limit")
    if told and shutil.disk_usage(path.parent).free < told:
        raise Unavailable("unavailable.disk", "no space left for the upload: free some and go on")


async def _write(pieces: AsyncIterator[bytes], path: Path, start: int, limit: int) -> None:
    try:
        file = path.open("r+b", buffering=0)
    except FileNotFoundError as error:
        raise Conflict("conflict.upload", "the upload is over: begin again") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Conflict("conflict.upload", "another request writes to this upload") from error
        if not path.exists():
            raise Conflict("conflict.upload", "the upload is over: begin again")  # a blob by now
        if file.seek(0, os.SEEK_END) != start:
            raise OutOfRange("invalid.range", "another request has written to this upload")
        batch = bytearray()
        try:
            async for piece in pieces:
                batch += piece
                if len(batch) >= BATCH:
                    full, batch = batch, bytearray()
                    start = await _flush(file, full, start, limit)
        finally:  # what has come is kept: whoever sends it can go on after it
            await _flush(file, batch, start, limit)


async def _flush(file: IO[bytes], data: bytearray, start: int, limit: int) -> int:
    if start + len(data) > limit:
        raise TooLarge("invalid.size", f"a blob is at most {limit} bytes: registry.blob_limit")
    try:
        await asyncio.to_thread(_write_all, file, data)
    except OSError as error:
        file.truncate(start)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise Unavailable(
                "unavailable.disk", "no space left for the upload: free some and go on"
            ) from error
        raise Unavailable("unavailable.io", f"cannot write the upload: {error}") from error
    return start + len(data)


def _write_all(file: IO[bytes], data: bytearray) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


async def _send(exchange: Exchange, answer: Answer) -> None:
    """Send a blob, or the part of it that is asked for."""
    size = int(answer.headers[LENGTH])
    found = _range(exchange.header("range"), size)
    start, end = found if found is not None else (0, size)
    status = 206 if found is not None else 200
    headers = [(name, answer.headers[name]) for name in BACK if name in answer.headers]
    headers = [each for each in headers if each[0] != "content-length"]
    headers.append(("content-length", str(end - start)))
    if found is not None:
        headers.append(("content-range", f"bytes {start}-{end - 1}/{size}"))
    if exchange.method == "HEAD":
        await exchange.finish(Whole(200, headers, b""))
    elif FILE not in answer.headers or start == end:
        await exchange.finish(Whole(status, headers, answer.body[start:end]))
    else:
        exchange.send_file(status, headers, unquote(answer.headers[FILE]), start, end)


def _range(text: str | None, size: int) -> tuple[int, int] | None:
    """Return the part of a file that a ``Range`` asks for, None for the whole of it."""
    if text is None or not text.startswith("bytes=") or "," in text:
        return None
    first, dash, last = text.removeprefix("bytes=").partition("-")
    if not dash or not (first + last).isdigit() or not (first + last).isascii():
        return None
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
    if start >= size or start >= end:
        raise OutOfRange("invalid.range", f"there are {size} bytes, none of {text:.60}")
    return start, end


def _passed_back(exchange: Exchange, answer: Answer) -> Whole:
    headers = [(name, answer.headers[name]) for name in BACK if name in answer.headers]
    if answer.status == 401:  # clients of registries log in with a password
        headers = [*(each for each in headers if each[0] != CHALLENGE[0]), CHALLENGE]
    if exchange.method == "HEAD":
        return Whole(answer.status, headers, b"")
    headers = [each for each in headers if each[0] != "content-length"]
    return Whole(answer.status, [*headers, ("content-length", str(len(answer.body)))], answer.body)
