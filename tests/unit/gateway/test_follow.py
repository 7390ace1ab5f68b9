"""Whether control is there: one that is late is waited for, one that is away is not."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from freehold.errors import NoCapacity
from freehold.gateway import follow
from freehold.gateway.follow import Follower


class Asking(Follower):
    """One whose questions are answered after the seconds of a script; None is no answer."""

    def __init__(self, path: Path, *script: float | None) -> None:
        nothing: Any = None
        super().__init__("g0", path / "snapshot.json", nothing, nothing, float, nothing)
        self._script: Iterator[float | None] = iter(script)

    async def _ask(self) -> None:
        wait = next(self._script, 60.0)
        if wait is None:
            raise NoCapacity("unavailable.control", "control has not started yet")
        await asyncio.sleep(wait)


def finds(follower: Follower, *, after: float = 0.0) -> bool:
    async def ask() -> bool:
        task = asyncio.create_task(follower.follow())
        await asyncio.sleep(after)
        try:
            return await follower.finds_control()
        finally:
            task.cancel()

    return asyncio.run(ask())


def test_control_that_is_late_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert finds(Asking(tmp_path, 0.2))
    monkeypatch.setattr(follow, "RETRY", 0.05)
    assert finds(Asking(tmp_path, None, None, 0.1))
    monkeypatch.setattr(follow, "BELIEVED", 0.1)  # what it said once is too old
    assert finds(Asking(tmp_path, 0.0, 0.4), after=0.2)


def test_control_that_is_away_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "ABSENT", 0.1)
    monkeypatch.setattr(follow, "RETRY", 0.01)
    assert not finds(Asking(tmp_path))
    assert not finds(Asking(tmp_path, *[None] * 100))


def test_control_that_went_is_not_believed_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "ABSENT", 0.1)
    assert not finds(Asking(tmp_path, 0.0, *[None] * 100), after=0.1)
