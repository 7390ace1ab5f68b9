"""The gateway processes: started, watched, started again, taken over after a restart of control."""

import hashlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from freehold import __version__
from freehold.errors import FreeholdError
from freehold.runtime import handover, process
from freehold.runtime.process import Identity
from freehold.settings import Server, Settings, environment

STEADY_AFTER = 10.0


class GatewayRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A running gateway as remembered on disk. ``build`` tells whether it is like ours."""

    pid: int
    started: float
    build: str
    host: str
    port: int


class Gateways:
    """Keeps the wanted number of gateway processes running on one listening socket."""

    def __init__(
        self, home: Path, settings: Settings, listen: Callable[[str, int], socket.socket]
    ) -> None:
        self._home = home
        self._settings = settings.server
        self._build = _build(settings)
        self._listen = listen
        self._directory = home / "run" / "gateways"
        self._records: dict[str, GatewayRecord] = {}
        self._born: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._listener: socket.socket | None = None

    @property
    def names(self) -> list[str]:
        """The names of the gateways that shall run."""
        return [f"gateway-{number}" for number in range(worker_count(self._settings))]

    @property
    def port(self) -> int:
        """The port they serve on."""
        assert self._listener is not None
        port: int = self._listener.getsockname()[1]
        return port

    def start(self) -> None:
        """Take over the gateways that run already, or open the port and start new ones."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in sorted(self._directory.glob("*.json")):
            with suppress(FreeholdError):
                self._adopt(path)
        if self._listener is None:
            self._listener = self._listen(self._settings.host, self._settings.port)
        self.watch()

    def watch(self) -> None:
        """Start what is missing; one that keeps dying is started less and less often."""
        for name in self.names:
            record = self._records.get(name)
            if record is not None and process.is_alive(Identity(record.pid, record.started)):
                continue
            if record is not None:
                lived = time.monotonic() - self._born.get(name, 0.0)
                self._failures[name] = (
                    0 if lived > STEADY_AFTER else self._failures.get(name, 0) + 1
                )
                del self._records[name]
                self._born[name] = time.monotonic()
            wait = min(30.0, 0.2 * 2 ** self._failures.get(name, 0)) if name in self._born else 0.0
            if time.monotonic() - self._born.get(name, 0.0) >= wait:
                self._spawn(name)

    def pids(self) -> dict[str, int]:
        """Return the process number of each gateway that was started."""
        return {name: record.pid for name, record in self._records.items()}

    def kill(self, name: str) -> None:
        """End a gateway at once; ``watch`` starts another in its place."""
        record = self._records.get(name)
        if record is not None:
            process.send(Identity(record.pid, record.started), signal.SIGKILL)

    def stop(self) -> None:
        """End all gateways, giving running requests time to finish."""
        alive = [Identity(record.pid, record.started) for record in self._records.values()]
        for identity in alive:
            process.send(identity, signal.SIGTERM)
        deadline = time.monotonic() + self._settings.shutdown_grace
        while any(process.is_alive(identity) for identity in alive):
            if time.monotonic() > deadline:
                for identity in alive:
                    process.send(identity, signal.SIGKILL)
                break
            time.sleep(0.02)
        for name in list(self._records):
            (self._directory / f"{name}.json").unlink(missing_ok=True)
            (self._directory / f"{name}.sock").unlink(missing_ok=True)
        self._records.clear()
        if self._listener is not None:
            self._listener.close()

    def _adopt(self, path: Path) -> None:
        record = process.read_private(path, GatewayRecord)
        identity = Identity(record.pid, record.started)
        name = path.stem
        if not process.is_alive(identity):
            path.unlink()
            return
        listener = handover.receive(self._directory / f"{name}.sock")
        same_place = (record.host, record.port) == (self._settings.host, self._settings.port)
        if listener is None or not same_place or name not in self.names:
            process.send(identity, signal.SIGTERM)
            path.unlink()
            return
        if self._listener is None:
            self._listener = listener
        else:
            listener.close()
        if record.build != self._build:  # its successor serves on the very same socket
            process.send(identity, signal.SIGTERM)
            path.unlink()
            return
        self._records[name] = record
        self._born[name] = time.monotonic()

    def _spawn(self, name: str) -> None:
        assert self._listener is not None
        number = self._listener.fileno()
        argv = (sys.executable, "-m", "freehold.app.gateway", str(self._home), name, str(number))
        identity = process.spawn(
            argv,
            self._home / "logs" / f"{name}.log",
            environment=dict(environment()),
            descriptors=(number,),
        )
        record = GatewayRecord(
            pid=identity.pid,
            started=identity.started,
            build=self._build,
            host=self._settings.host,
            port=self._settings.port,
        )
        process.write_private(self._directory / f"{name}.json", record)
        self._records[name] = record
        self._born[name] = time.monotonic()


def worker_count(settings: Server) -> int:
    """Return how many gateways to run: as told, else one for every eight cores."""
    return settings.workers or max(1, (os.cpu_count() or 1) // 8)


def are_running(home: Path) -> bool:
    """Say whether any gateway of a home is alive."""
    for path in home.glob("run/gateways/*.json"):
        with suppress(FreeholdError, OSError):
            record = process.read_private(path, GatewayRecord)
            if process.is_alive(Identity(record.pid, record.started)):
                return True
    return False


def stop_leftovers(home: Path, grace: float) -> int:
    """End the gateways and engines that a killed control left running; return how many."""
    found: list[Identity] = []
    for path in (*home.glob("run/gateways/*.json"), *home.glob("run/replicas/*.json")):
        with suppress(FreeholdError, OSError):
            record = process.read_private(path, _Left)
            if record.pid is not None and record.started is not None:
                found.append(Identity(record.pid, record.started))
        path.unlink(missing_ok=True)
    for identity in found:
        process.send(identity, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while any(process.is_alive(identity) for identity in found) and time.monotonic() < deadline:
        time.sleep(0.05)
    for identity in found:
        process.send(identity, signal.SIGKILL)
    return len(found)


class _Left(msgspec.Struct, frozen=True):
    pid: int | None = None
    started: float | None = None


def _build(settings: Settings) -> str:
    text = msgspec.json.encode((__version__, settings, sys.executable))
    return hashlib.sha256(text).hexdigest()[:16]
