"""The log: one JSON object a line on standard error, never the content of a request."""

import datetime
import logging
import sys
import traceback

import msgspec

from freehold.gateway.exchange import Exchange
from freehold.record.entry import Entry
from freehold.settings import Log as Settings

ONCE_IN = 60.0
_LEVELS = {"refused": logging.WARNING, "failed": logging.ERROR}


class Log:
    """Writes lines to a logger of the standard library, so an operator can send them anywhere."""

    def __init__(self, name: str, settings: Settings | None = None) -> None:
        self._logger = logging.getLogger(f"freehold.{name}")
        self._access = settings is not None and settings.access

    def request(self, exchange: Exchange, entry: Entry) -> None:
        """Write the line of a request that is over: always for an error, else where wanted."""
        level = _LEVELS.get(entry.outcome, logging.INFO)
        if self._access or (level > logging.INFO and self._logger.isEnabledFor(level)):
            self._write(level, _line(self._logger.name, level, exchange, entry))

    def crash(self, exchange: Exchange, error: BaseException) -> None:
        """Write the traceback of a fault of ours, under the request's id."""
        lines = traceback.format_exception(type(error), error, error.__traceback__)
        self._logger.error("%s %s", exchange.id, "".join(lines))

    def _write(self, level: int, line: dict[str, object]) -> None:
        # Past the level of the logger: whether requests are written is a setting of its own.
        text = msgspec.json.encode(line).decode()
        name = self._logger.name
        record = self._logger.makeRecord(name, level, "", 0, "%s", (text,), None)
        record.line = text
        self._logger.handle(record)


_TOLD = ("error", "trace", "span", "principal", "key", "client", "dialect", "stream", "deployment",
         "replica", "attempts", "model", "version", "digest", "tokens_in", "tokens_out",
         "tokens_cached", "first_token_ms")  # fmt: skip
"""What a line tells of a record where there is something to tell; durations in milliseconds."""


def _line(logger: str, level: int, exchange: Exchange, entry: Entry) -> dict[str, object]:
    told = ((name, getattr(entry, name)) for name in _TOLD)
    return {
        "at": _time(entry.at),
        "level": logging.getLevelName(level).lower(),
        "logger": logger,
        "id": entry.id,
        "method": exchange.method[:20],
        "path": exchange.path[:200],
        "action": entry.action,
        "status": entry.status,
        "outcome": entry.outcome,
        "ms": entry.total_ms,
        **{name: value for name, value in told if value},
    }


class _Once(logging.Filter):
    """Lets what an exporter complains about through once a minute, not with every batch."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith("opentelemetry"):
            return True
        fresh = record.created - self._said.get(record.msg, 0.0) >= ONCE_IN
        if fresh:
            self._said[record.msg] = record.created
        return fresh


class _Lines(logging.Formatter):
    """Writes every record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line: str | None = getattr(record, "line", None)
        if line is not None:
            return line
        message = record.getMessage()
        if record.exc_info:
            message = f"{message}\n{self.formatException(record.exc_info)}"
        document = {
            "at": _time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
        }
        return msgspec.json.encode(document).decode()


def configure_logging(settings: Settings) -> None:
    """Send our log to standard error; called once a process, by its composition root."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    handler.addFilter(_Once())
    logging.basicConfig(handlers=[handler], level=settings.level.upper(), force=True)


def _time(at: float) -> str:
    moment = datetime.datetime.fromtimestamp(at, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
