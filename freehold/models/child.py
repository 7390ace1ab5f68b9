"""Children that work on models: what they say line by line, and how they end."""

import os
import selectors
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import IO, Any

import msgspec

from freehold.models.source import Progress
from freehold.settings import environment

WATCH = 0.5
"""Seconds until a stop is heard while a child says nothing."""
ENDS_WITHIN = 5.0
LAST_WORDS = 300
"""Bytes of a log that are told of a child that ended without an answer."""


class Ended(msgspec.Struct, frozen=True):
    """A child that ended without an answer: its exit status, and its last words in one line."""

    code: int
    words: str


def ask(
    argv: Sequence[str], order: msgspec.Struct, log: IO[bytes], progress: Progress, size: int
) -> dict[str, Any] | Ended:
    """Give a child its order and return its answer: the first that it says but progress; blocks.

    Its progress is passed on as a share of ``size`` bytes. ``log`` takes what it complains of, and
    is read where it ends without an answer. However this ends, the child does too.
    """
    child = subprocess.Popen(
        list(argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=surroundings()
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        with suppress(BrokenPipeError), child.stdin as pipe:  # it ended before it heard all
            pipe.write(msgspec.json.encode(order))
        for answer in lines(child.stdout, progress, size):
            return answer
    finally:
        end(child)
    log.seek(0)
    return Ended(child.returncode, last_words(log.read()))


def last_words(log: bytes) -> str:
    """Return the end of a log as one line. Pure."""
    return log[-LAST_WORDS:].decode(errors="replace").strip().replace("\n", " ")


def lines(stdout: IO[bytes], progress: Progress, size: int) -> Iterator[dict[str, Any]]:
    """Yield what a child says but progress, which is passed on as a share of ``size`` bytes."""
    stage, share, buffer = "start", 0.0, b""
    with selectors.DefaultSelector() as waiting:
        waiting.register(stdout, selectors.EVENT_READ)
        while True:
            progress(stage, int(share * size), size)
            if not waiting.select(WATCH):
                continue
            piece = os.read(stdout.fileno(), 1 << 16)
            if not piece:
                return
            *whole, buffer = (buffer + piece).split(b"\n")
            for line in whole:
                document = msgspec.json.decode(line, type=dict[str, Any])
                if "stage" in document:
                    stage, share = str(document["stage"]), float(document["share"])
                else:
                    yield document


def below(argv: Sequence[str]) -> list[str]:
    """Return a command that runs below everything else on this machine: whoever asks goes first."""
    nice = shutil.which("nice")
    return [*([nice, "-n", "10"] if nice else []), *argv]


def surroundings() -> dict[str, str]:
    """Return the environment of a child: ours, and no debugger started by native code that ends."""
    return {**environment(), "GGML_NO_BACKTRACE": "1"}


def end(child: "subprocess.Popen[bytes]") -> None:
    """End a child, politely for as long as that helps."""
    if child.stdin is not None:
        with suppress(BrokenPipeError):  # it died before it heard all
            child.stdin.close()
    if child.stdout is not None:
        child.stdout.close()
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
