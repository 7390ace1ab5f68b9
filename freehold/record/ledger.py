"""From journals to tables: each durable line is counted exactly once."""

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from freehold.record.entry import Entry
from freehold.store import ledger
from freehold.store.database import Database
from freehold.store.ledger import RecordRow, UsageRow

BATCH = 4 * 1024 * 1024


def take_in_journals(database: Database, directory: Path) -> int:
    """Read what journals have gained since last time; return how many records that were."""
    taken = 0
    for path in sorted(directory.glob("*.jsonl")):
        while count := _take_in_batch(database, path):
            taken += count
    return taken


def records(
    database: Database,
    *,
    limit: int,
    before: float | None = None,
    principal: str | None = None,
    deployment: str | None = None,
    request: str | None = None,
) -> list[dict[str, Any]]:
    """Return matching records, newest first."""
    with database.transaction() as connection:
        texts = ledger.recent_records(
            connection,
            limit=limit,
            before=before,
            principal=principal,
            deployment=deployment,
            request=request,
        )
    return [msgspec.json.decode(text) for text in texts]


def usage_since(database: Database, since: str | None) -> list[UsageRow]:
    """Return usage by UTC day, principal and deployment, from a day on."""
    with database.transaction() as connection:
        return ledger.usage(connection, since=since)


def _take_in_batch(database: Database, path: Path) -> int:
    size = path.stat().st_size
    with database.transaction() as connection:
        offset = ledger.journal_offset(connection, path.name)
        if size <= offset:
            return 0
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(BATCH)
        whole = data[: data.rfind(b"\n") + 1]
        if not whole:
            return 0
        entries = list(_entries(whole))
        ledger.take_in(
            connection,
            path.name,
            offset + len(whole),
            [_row(entry, text) for entry, text in entries],
            [_usage(entry) for entry, _ in entries if entry.action == "completion:run"],
        )
    return len(entries)


def _entries(lines: bytes) -> Iterator[tuple[Entry, str]]:
    for line in lines.splitlines():
        try:
            yield msgspec.json.decode(line, type=Entry), line.decode()
        except msgspec.DecodeError:
            # A line torn by a full disk was never acknowledged, so nobody was answered on it.
            continue


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


def _usage(entry: Entry) -> UsageRow:
    moment = datetime.datetime.fromtimestamp(entry.at, datetime.UTC)
    return UsageRow(
        day=moment.strftime("%Y-%m-%d"),
        principal=entry.principal or "",
        deployment=entry.deployment or "",
        requests=1,
        failed=int(entry.outcome != "ok"),
        tokens_in=entry.tokens_in,
        tokens_out=entry.tokens_out,
        milliseconds=entry.total_ms,
    )
