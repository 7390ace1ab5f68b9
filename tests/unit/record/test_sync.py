"""Both ways to make a file durable do it, and say when they cannot."""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from freehold.record.journal import Journal
from freehold.record.sync import KernelSync, Sync, ThreadSync

WAYS = [ThreadSync]
if sys.platform == "linux":
    WAYS.append(KernelSync)  # type: ignore[arg-type]


class Waiting:
    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.result: asyncio.Future[int] = self.loop.create_future()

    def done(self, number: int) -> None:
        self.result.set_result(number)

    async def of(self, sync: Sync, descriptor: int) -> int:
        self.result = self.loop.create_future()
        sync.begin(descriptor)
        return await asyncio.wait_for(self.result, 5)


@pytest.mark.parametrize("way", WAYS)
async def test_a_file_is_synced_again_and_again(way: Callable[..., Sync], tmp_path: Path) -> None:
    waiting = Waiting()
    sync = way(waiting.done)
    with (tmp_path / "file").open("wb", buffering=0) as file:
        for _ in range(20):
            file.write(b"line\n")
            assert await waiting.of(sync, file.fileno()) == 0
    sync.close()


@pytest.mark.parametrize("way", WAYS)
async def test_what_cannot_be_synced_is_told(way: Callable[..., Sync]) -> None:
    waiting = Waiting()
    sync = way(waiting.done)
    reading, writing = os.pipe()
    try:
        number = await waiting.of(sync, writing)
    except OSError as error:
        number = error.errno or 0
    assert number > 0
    sync.close()
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("way", WAYS)
async def test_the_journal_works_with_it(
    way: Callable[..., Sync], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("freehold.record.journal.open_sync", way)
    journal = Journal(tmp_path, "w", 1000)
    await asyncio.gather(*(journal.append(b"%d\n" % number) for number in range(400)))
    for number in range(400, 900):
        await journal.append(b"%d\n" % number)
    last = journal.append(b"900\n")
    journal.close()
    await last
    texts = [path.read_text() for path in sorted(tmp_path.glob("w-*.jsonl"))]
    assert len(texts) > 1
    assert "".join(texts).split() == [str(number) for number in range(901)]
