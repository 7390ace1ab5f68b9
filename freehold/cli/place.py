"""Where the gateways of a home serve: control need not be alive for that."""

from contextlib import suppress
from pathlib import Path

import psutil

from freehold.control.gateways import GatewayRecord
from freehold.errors import FreeholdError
from freehold.runtime.process import Identity, is_alive, read_private

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - read, not bound


def serving_url(home: Path) -> str | None:
    """Return where a home's gateways serve now, or None when none of them runs."""
    for path in sorted(home.glob("run/gateways/*.json")):
        with suppress(FreeholdError, OSError, psutil.Error):
            record = read_private(path, GatewayRecord)
            if is_alive(Identity(record.pid, record.started)):
                port = _port(record.pid)
                if port is not None:
                    return _url(record, port)
    return None


def _port(pid: int) -> int | None:
    """Return the port that this very process listens on: a key goes there, and to nobody else."""
    found = psutil.Process(pid).net_connections(kind="tcp")
    return next((each.laddr.port for each in found if each.status == psutil.CONN_LISTEN), None)


def _url(record: GatewayRecord, port: int) -> str:
    host = _ANY.get(record.host, record.host)
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if record.tls else 'http'}://{shown}:{port}"
