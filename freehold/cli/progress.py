"""How far long work is: a bar on a terminal, plain lines elsewhere; all of it on stderr."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import click

from freehold.cli.words import size

LINE_EVERY = 5.0
"""Seconds between two lines about the same stage."""


class Progress(Protocol):
    """Shows the stages of one piece of work."""

    def show(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage is, in bytes; a total of 0 is unknown."""
        ...

    def percent(self, stage: str, share: float) -> None:
        """Show how far a stage is that has no bytes, from 0 to 1."""
        ...

    def close(self) -> None:
        """End it."""
        ...


@contextmanager
def progress(label: str) -> Iterator[Progress]:
    """Yield what shows progress here."""
    made: Progress = Bar(label) if sys.stderr.isatty() else Lines(label)
    try:
        yield made
    finally:
        made.close()


class Bar:
    """A bar for each stage; a rate only where bytes move."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._stage = ""
        self._bar: Any = None

    def show(self, stage: str, done: int, total: int) -> None:
        """Show bytes."""
        if stage != self._stage:
            self._open(stage, total, unit="B", unit_scale=True)
        self._move(done)

    def percent(self, stage: str, share: float) -> None:
        """Show a share."""
        if stage != self._stage:
            self._open(stage, 100, bar_format="{l_bar}{bar}| {elapsed}")
        self._move(int(share * 100))

    def close(self) -> None:
        """End the bar's line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _open(self, stage: str, total: int, **form: Any) -> None:
        from tqdm import tqdm

        self.close()
        self._stage = stage
        if not total:
            form = {"bar_format": "{desc} {elapsed}"}
        self._bar = tqdm(
            total=total or None, desc=f"{self._label}: {stage}", file=sys.stderr, mininterval=0.2,
            dynamic_ncols=True, **form,
        )  # fmt: skip

    def _move(self, done: int) -> None:
        if self._bar is not None:
            self._bar.update(done - self._bar.n)


class Lines:
    """A line when a stage begins, and now and then while it lasts."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._stage = ""
        self._said = 0.0

    def show(self, stage: str, done: int, total: int) -> None:
        """Show bytes."""
        self._say(stage, f" {size(done)} of {size(total)}" if total else "")

    def percent(self, stage: str, share: float) -> None:
        """Show a share."""
        self._say(stage, f" {share:.0%}")

    def close(self) -> None:
        """There is nothing to end."""

    def _say(self, stage: str, how_far: str) -> None:
        now = time.monotonic()
        if stage != self._stage or now - self._said >= LINE_EVERY:
            self._stage, self._said = stage, now
            click.echo(f"{self._label}: {stage}{how_far}", err=True)
