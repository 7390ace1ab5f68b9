"""What a compression is asked to do, what it reports, and where it keeps how far it came."""

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from freehold.models.intervals import Interval

Found = TypeVar("Found")


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One compression, as its child is told. Paths are absolute; sizes in bytes.

    ``loss`` is in nats of divergence (one minus cosine for embedding models); ``target`` is the
    size to reach, where one is asked for; then the loss is what the gate judges by.
    """

    source: str
    scratch: str
    loss: float
    target: int | None = None
    threads: int = 1
    learn: tuple[str, ...] = ()
    judge: tuple[str, ...] = ()
    encoder: bool = False
    ranks: bool = False
    tiny: bool = False
    parent: str = ""
    thorough: int = 16
    """Texts of 256 tokens that the result is judged by."""


class TensorRow(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor of the report. ``loss`` is what the measured model of losses gives it, if any."""

    name: str
    shape: tuple[int, ...]
    before: str
    after: str
    bytes_before: int
    bytes_after: int
    loss: float | None


class Point(msgspec.Struct, frozen=True):
    """A mixture that could have been: its bytes and the loss that was foreseen for it."""

    bytes: int
    loss: float


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What a child found. Bytes are of files; ``bytes_full`` is of the 16-bit reference."""

    bytes_before: int
    bytes_full: int
    bytes_after: int
    dequantised: bool
    tied: bool
    metric: str
    loss: Interval
    foreseen: float
    perplexity_before: float | None = None
    perplexity_after: float | None = None
    perplexity: Interval | None = None
    agreement: Interval | None = None
    retrieval: Interval | None = None
    caches: dict[str, Interval] = {}
    tokens_judged: int
    texts_learned: int
    tensors: tuple[TensorRow, ...]
    line: tuple[Point, ...]
    seconds: dict[str, float] = {}
    cpu_seconds: float = 0.0
    cpu: dict[str, float] = {}
    peak_memory: int = 0


class Checkpoints:
    """Results of stages, kept as JSON files that appear whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, name: str, kind: type[Found]) -> Found | None:
        """Return a stage's result when it was kept."""
        path = self.folder / f"{name}.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def keep(self, name: str, value: Any) -> None:
        """Keep a stage's result."""
        path = self.folder / f"{name}.json"
        partial = path.with_suffix(".partial")
        partial.write_bytes(msgspec.json.encode(value))
        partial.replace(path)
