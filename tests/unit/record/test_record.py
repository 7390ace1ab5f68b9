"""The journal is durable before anybody goes on; the ledger counts each line once."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from freehold.errors import Unavailable
from freehold.record.entry import Entry, encode
from freehold.record.journal import Journal
from freehold.record.ledger import BATCH, forget_old, records, take_in_journals, usage_since
from freehold.record.refusals import MOST, Refusals
from freehold.store.database import Database


def entry(number: int, **fields: object) -> Entry:
    base = {"action": "completion:run", "outcome": "ok", "principal": "ann", "deployment": "d"}
    return Entry(id=f"r{number}", at=1000.0 + number, **{**base, **fields})  # type: ignore[arg-type]


async def test_what_is_acknowledged_is_in_the_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "w", 1 << 20)
    await asyncio.gather(*(journal.append(b"%d\n" % n) for n in range(500)))
    text = next(tmp_path.glob("w-*.jsonl")).read_text()
    assert text.split() == [str(n) for n in range(500)]
    journal.close()
    with pytest.raises(Unavailable, match="closed"):
        await journal.append(b"late\n")


async def test_whatever_befalls_who_is_told_nobody_waits_for_ever(tmp_path: Path) -> None:
    complaints: list[object] = []

    def told(_: object) -> None:
        raise ValueError("a number too large")

    asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))
    journal = Journal(tmp_path, "w", 1 << 20, told)
    for number in range(3):
        both = (journal.append(b"a\n", entry(number)), journal.append(b"b\n"))
        await asyncio.wait_for(asyncio.gather(*both), 5)
    journal.close()
    assert len(complaints) >= 3


async def test_it_rotates(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "w", 100)
    for _ in range(20):
        await journal.append(b"x" * 50 + b"\n")
        await asyncio.sleep(0.002)
    journal.close()
    files = list(tmp_path.glob("*.jsonl"))
    assert len(files) > 5
    assert sum(path.stat().st_size for path in files) == 20 * 51


async def test_a_full_disk_refuses_and_later_lines_are_whole(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "w", 1 << 20)
    await journal.append(b"first\n")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9, limits[1]))
    try:
        with pytest.raises(Unavailable, match="nothing is answered without a record"):
            await journal.append(b"second\n")
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
        assert not await journal.is_writable()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    await journal.append(b"third\n")
    assert await journal.is_writable()
    journal.close()
    # Never in the place of torn bytes that may have been read already.
    files = sorted(tmp_path.glob("*.jsonl"))
    assert [path.read_text() for path in files] == ["first\n", "third\n"]


async def test_a_disk_that_stays_full_does_not_fill_up_with_files(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "w", 1 << 20)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3, limits[1]))
    try:
        for _ in range(5):
            with pytest.raises(Unavailable):
                await journal.append(b"line\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert list(tmp_path.glob("*.jsonl")) == []
    journal.close()


def test_refusals_of_strangers_are_counted_when_they_are_many() -> None:
    now = [100.0]
    refusals = Refusals(lambda: now[0])
    assert [refusals.admit() for _ in range(MOST + 5)] == [True] * MOST + [False] * 5
    assert (refusals.take(), refusals.take()) == (5, 0)
    now[0] += 1
    assert refusals.admit()


def test_a_kill_at_any_moment_loses_nothing_acknowledged(tmp_path: Path) -> None:
    code = """
import asyncio, sys
from pathlib import Path
from freehold.record.journal import Journal
async def main():
    journal = Journal(Path(sys.argv[1]), "w", 1 << 30)
    n = 0
    while True:
        await journal.append(b"%d\\n" % n)
        print(n, flush=True)
        n += 1
asyncio.run(main())
"""
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    seen = [int(child.stdout.readline()) for _ in range(200)]
    os.kill(child.pid, signal.SIGKILL)
    seen += [int(line) for line in child.stdout.read().split("\n") if line]
    child.wait()
    child.stdout.close()
    written = next(tmp_path.glob("*.jsonl")).read_text().split("\n")
    assert set(map(str, seen)) <= set(written)


def test_each_line_counts_once(tmp_path: Path) -> None:
    database = Database(tmp_path / "f.db")
    journal = tmp_path / "audit" / "w-1.jsonl"
    journal.parent.mkdir()
    lines = [
        encode(entry(1, tokens_in=5, tokens_out=7, total_ms=2.0)),
        encode(entry(2, tokens_in=1, outcome="failed")),
        encode(entry(3, principal="bob")),
        encode(entry(4, action="key:write")),
    ]
    journal.write_bytes(b"".join(lines) + b'{"id": "torn')
    assert take_in_journals(database, journal.parent) == 4
    assert take_in_journals(database, journal.parent) == 0
    with journal.open("ab") as file:
        file.write(b'"}\nnot json\n' + encode(entry(5, tokens_in=10)))
    take_in_journals(database, journal.parent)
    rows = {row.principal: row for row in usage_since(database, None)}
    assert (rows["ann"].requests, rows["ann"].failed, rows["ann"].tokens_in) == (3, 1, 16)
    assert rows["bob"].requests == 1
    assert usage_since(database, "2999-01-01") == []
    found = records(database, limit=10)
    assert [record["id"] for record in found] == ["r5", "r4", "r3", "r2", "r1"]
    assert [r["id"] for r in records(database, limit=1, before=1004.0)] == ["r3"]
    assert [r["id"] for r in records(database, limit=9, principal="bob")] == ["r3"]
    database.close()


@pytest.mark.parametrize(
    "line",
    [
        encode(entry(9, tokens_out=2**63)),
        encode(entry(9, tokens_in=-1)),
        encode(entry(9, cost=2**80)),
        b'{"id": "r9", "at": 1e18, "action": "completion:run"}\n',
        b'{"id": "r9", "at": 1, "action": "completion:run", "principal": "\\ud800"}\n',
        b'{"id": "r9", "at": 1, "action": "a", "other": "\xff\xfe"}\n',
    ],
)
def test_a_record_that_cannot_be_a_row_stops_nothing(
    tmp_path: Path, line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database(tmp_path / "f.db")
    (tmp_path / "w-1.jsonl").write_bytes(encode(entry(1)) + line + encode(entry(2)))
    assert take_in_journals(database, tmp_path) == 2
    assert [record["id"] for record in records(database, limit=9)] == ["r2", "r1"]
    assert take_in_journals(database, tmp_path) == 0
    database.close()


def test_many_lines_are_taken_in_by_and_by(tmp_path: Path) -> None:
    database = Database(tmp_path / "f.db")
    long = encode(entry(5000, subject="x" * (2 * BATCH)))
    lines = [encode(entry(n, tokens_in=1, principal=f"p{n % 3}")) for n in range(4000)]
    (tmp_path / "w-1.jsonl").write_bytes(b"".join(lines) + long)
    assert take_in_journals(database, tmp_path) == 4001
    usage = usage_since(database, None)
    assert sum(row.tokens_in for row in usage) == 4000
    assert sum(row.requests for row in usage) == 4001
    database.close()


def test_old_records_go_and_what_is_not_in_the_tables_stays(tmp_path: Path) -> None:
    database = Database(tmp_path / "f.db")
    for number, name in ((1, "old"), (2, "new"), (3, "torn")):
        (tmp_path / f"{name}-1.jsonl").write_bytes(encode(entry(number)))
    take_in_journals(database, tmp_path)
    with (tmp_path / "torn-1.jsonl").open("ab") as file:
        file.write(encode(entry(4)))
    for name in ("old", "torn"):
        os.utime(tmp_path / f"{name}-1.jsonl", (500, 500))
    forget_old(database, tmp_path, 1002.0)
    assert sorted(path.name for path in tmp_path.glob("*.jsonl")) == ["new-1.jsonl", "torn-1.jsonl"]
    assert take_in_journals(database, tmp_path) == 1
    assert [record["id"] for record in records(database, limit=9)] == ["r4", "r3", "r2"]
    assert sum(row.requests for row in usage_since(database, None)) == 4
    database.close()
