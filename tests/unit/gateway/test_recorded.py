"""A fault of ours: 500 with an id, a line in the log under it, and nothing of what was wrong."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest

from freehold.gateway.alarm import Alarms
from freehold.gateway.door import Door
from freehold.gateway.exchange import Exchange, Last
from freehold.gateway.log import Log
from freehold.gateway.recorded import Books, recorded
from freehold.gateway.telemetry import Telemetry
from freehold.record.entry import Entry
from freehold.record.journal import Journal
from freehold.record.meter import Meter
from freehold.settings import Server


class Headers(dict[str, str]):
    """As the server gives them."""

    def get_all(self, name: str) -> list[str]:
        return [self[name]] if name in self else []


class Scope:
    """A request as the server tells of it."""

    client, http_version, method, path, query_string = "127.0.0.1:1", "1.1", "GET", "/x", ""
    headers = Headers()


class Line:
    """Where the answer goes."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, dict[str, str], bytes]] = []

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.sent.append((status, dict(headers), body))

    async def client_disconnect(self) -> None:
        await asyncio.Event().wait()


async def test_no_500_without_an_id_and_a_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(_entry: Entry) -> Last:
        raise ZeroDivisionError("the secret of it")

    line, alarms = Line(), Alarms(asyncio.get_running_loop())
    exchange = Exchange(Scope(), line, Door(Server(), alarms))
    journal = Journal(tmp_path / "audit", "gateway-0", 1 << 20)
    telemetry = Telemetry("gateway-0", Meter(tmp_path / "metrics"), None, 0.0)
    books = Books(journal=journal, log=Log("gateway-0"), clock=lambda: 1.0, telemetry=telemetry)
    with caplog.at_level(logging.WARNING):
        await recorded(exchange, "none", fails, books)
    ((status, headers, body),) = line.sent
    error: dict[str, Any] = msgspec.json.decode(body)["error"]
    assert (status, error["code"], error["id"]) == (500, "broken.internal", exchange.id)
    assert headers["x-freehold-request"] == exchange.id
    assert b"secret" not in body
    crash = next(each for each in caplog.records if each.levelno == logging.ERROR)
    assert exchange.id in crash.getMessage()
    assert "ZeroDivisionError" in crash.getMessage()
    record = msgspec.json.decode(next((tmp_path / "audit").glob("*.jsonl")).read_bytes())
    assert (record["id"], record["status"], record["outcome"]) == (exchange.id, 500, "failed")
    journal.close()
    telemetry.close()
