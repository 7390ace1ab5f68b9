"""The log: one JSON line a request on standard error, never its content."""

import logging
import sys
import traceback

import msgspec

from freehold.gateway.exchange import Exchange
from freehold.record.entry import Entry


class Log:
    """Writes lines to a logger of the standard library, so an operator can send them anywhere."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(f"freehold.{name}")

    def request(self, exchange: Exchange, entry: Entry) -> None:
        """Write the access line of a request that is over."""
        if self._logger.isEnabledFor(logging.INFO):
            self._logger.info("%s", msgspec.json.encode(_Line.of(exchange, entry)).decode())

    def crash(self, exchange: Exchange, error: BaseException) -> None:
        """Write the traceback of a fault of ours, under the request's id."""
        lines = traceback.format_exception(type(error), error, error.__traceback__)
        self._logger.error("%s %s", exchange.id, "".join(lines))


class _Line(msgspec.Struct, frozen=True):
    id: str
    method: str
    path: str
    status: int
    outcome: str
    deployment: str | None
    principal: str | None
    ms: float

    @staticmethod
    def of(exchange: Exchange, entry: Entry) -> "_Line":
        return _Line(
            entry.id,
            exchange.method,
            exchange.path[:200],
            entry.status,
            entry.outcome,
            entry.deployment,
            entry.principal,
            entry.total_ms,
        )


def configure_logging(level: int = logging.WARNING) -> None:
    """Send our log to standard error; called once a process, by its composition root."""
    logging.basicConfig(stream=sys.stderr, level=level, format="%(asctime)s %(name)s %(message)s")
