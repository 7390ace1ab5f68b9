"""From journals to tables: each durable line is counted exactly once."""

import datetime
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from freehold.record.entry import Entry
from freehold.record.spending import spending
from freehold.record.windows import MINUTE, period
from freehold.store import ledger
from freehold.store.database import Database
from freehold.store.ledger import RecordRow, UsageRow
from freehold.store.spending import journal_offsets, old_minutes, remove_minutes

BATCH = 256 * 1024
"""Bytes taken in at a time: others wait to write no longer than that takes."""
FORGOTTEN_AT_ONCE = 1000

_log = logging.getLogger("freehold.record")


def take_in_journals(database: Database, directory: Path, pause: float = 0.0) -> int:
    """Read what journals have gained since last time; return how many records that were.

    Between two batches others get ``pause`` seconds to write.
    """
    with database.reading() as connection:
        offsets = journal_offsets(connection)
    taken = 0
    for path in sorted(directory.glob("*.jsonl")):
        if _size(path) <= offsets.get(path.name, 0):
            continue
        while (count := _take_in_batch(database, path)) is not None:
            taken += count
            time.sleep(pause)
    return taken


def forget_old(database: Database, directory: Path, before: float, pause: float = 0.0) -> None:
    """Delete records, and journals that are in the tables, from before a moment (epoch seconds)."""
    with database.reading() as connection:
        offsets = journal_offsets(connection)
    for path in sorted(directory.glob("*.jsonl")):
        with suppress(FileNotFoundError):
            status = path.stat()
            if status.st_mtime < before and status.st_size <= offsets.get(path.name, 0):
                path.unlink()
                with database.transaction() as connection:
                    ledger.forget_journal(connection, path.name)
    while True:
        with database.transaction() as connection:
            gone = ledger.forget_records(connection, before, FORGOTTEN_AT_ONCE)
        if gone < FORGOTTEN_AT_ONCE:
            return
        time.sleep(pause)


def forget_minutes(database: Database, before: float, pause: float = 0.0) -> int:
    """Delete spending by minute from before a moment (epoch seconds); days are kept for ever.

    Return how many rows that were. Between two subjects others get ``pause`` seconds to write.
    """
    minute = period("minute", int(before // MINUTE))
    with database.reading() as connection:
        subjects = old_minutes(connection, minute)
    gone = 0
    for scope, name in subjects:
        with database.transaction() as connection:
            gone += remove_minutes(connection, scope, name, minute)
        time.sleep(pause)
    return gone


def records(
    database: Database,
    *,
    limit: int,
    before: float | None = None,
    principal: str | None = None,
    deployment: str | None = None,
    request: str | None = None,
    action: str | None = None,
    outcome: str | None = None,
) -> list[dict[str, Any]]:
    """Return matching records, newest first."""
    with database.reading() as connection:
        texts = ledger.recent_records(
            connection,
            limit=limit,
            before=before,
            principal=principal,
            deployment=deployment,
            request=request,
            action=action,
            outcome=outcome,
        )
    return [msgspec.json.decode(text) for text in texts]


def usage_since(database: Database, since: str | None) -> list[UsageRow]:
    """Return usage by UTC day, principal and deployment, from a day on."""
    with database.reading() as connection:
        return ledger.usage(connection, since=since)


def _take_in_batch(database: Database, path: Path) -> int | None:
    """Take some lines in; return how many they were, None when there is no whole line left."""
    with database.transaction() as connection:
        offset = ledger.journal_offset(connection, path.name)
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(BATCH) + file.readline()
        whole = data[: data.rfind(b"\n") + 1]
        if not whole:
            return None
        entries = list(_entries(whole, path.name))
        ledger.take_in(
            connection,
            path.name,
            offset + len(whole),
            [_row(entry, text) for entry, text in entries],
            _usage(entry for entry, _ in entries if entry.action == "completion:run"),
            spending(entry for entry, _ in entries),
        )
    return len(entries)


def _entries(lines: bytes, name: str) -> Iterator[tuple[Entry, str]]:
    for line in lines.split(b"\n"):
        try:
            if line:
                yield msgspec.json.decode(line, type=Entry), line.decode()
        except (msgspec.ValidationError, UnicodeDecodeError) as error:
            _log.error("a record of %s cannot be in the tables, and stays there: %s", name, error)
        except msgspec.DecodeError:
            # A line torn by a full disk was never acknowledged, so nobody was answered on it.
            continue


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _row(entry: Entry, text: str) -> RecordRow:
    return RecordRow(
        id=entry.id,
        at=entry.at,
        action=entry.action,
        principal=entry.principal,
        deployment=entry.deployment,
        outcome=entry.outcome,
        document=text,
    )


def _usage(entries: Iterable[Entry]) -> list[UsageRow]:
    """Add entries up by day, principal and deployment."""
    found: dict[tuple[str, str, str], UsageRow] = {}
    for entry in entries:
        day = datetime.datetime.fromtimestamp(entry.at, datetime.UTC).strftime("%Y-%m-%d")
        name = (day, entry.principal or "", entry.deployment or "")
        before = found.get(name) or UsageRow(
            day=name[0], principal=name[1], deployment=name[2],
            requests=0, failed=0, tokens_in=0, tokens_out=0, milliseconds=0.0,
        )  # fmt: skip
        found[name] = msgspec.structs.replace(
            before,
            requests=before.requests + 1,
            failed=before.failed + int(entry.outcome != "ok"),
            tokens_in=before.tokens_in + entry.tokens_in,
            tokens_out=before.tokens_out + entry.tokens_out,
            milliseconds=before.milliseconds + entry.total_ms,
        )
    return list(found.values())
