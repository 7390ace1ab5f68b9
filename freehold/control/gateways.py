"""The gateway processes: started, watched, started again, replaced without a dropped request.

All listen on one socket. What shall run is a number of processes of one *build*: version, settings
and certificate. Any other build is replaced one process at a time: a new one is started, and only
once it serves is an old one told to drain, which leads its clients away before it ends.
"""

import hashlib
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from freehold import __version__
from freehold.control import certificate
from freehold.control.certificate import Certificate
from freehold.control.rolling import Gateway, step
from freehold.errors import FreeholdError
from freehold.runtime import handover, process
from freehold.runtime.process import Identity
from freehold.settings import Server, Settings, environment, read_settings, waiting, worker_count

STEADY_AFTER = 10.0
LOOK_EVERY = 1.0
"""Seconds between two looks at the files of the certificate."""
STRAY_ENDS = 5.0
"""Seconds to wait for a killed gateway to give its port back."""
FORCED_AFTER = 2.0
"""Seconds after the grace when a gateway that should have ended is killed."""

_log = logging.getLogger("freehold.control")


class GatewayRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A running gateway as remembered on disk. ``build`` tells whether it is like ours."""

    pid: int
    started: str
    build: str
    host: str
    port: int
    tls: str = ""
    draining: bool = False


class Gateways:
    """Keeps the wanted number of gateway processes running on one listening socket.

    ``check`` raises for settings that gateways could not work with. ``trouble`` says why a
    certificate on disk is not the one in force, ``pending`` which changed settings are not: control
    goes by those it started with.
    """

    def __init__(
        self,
        home: Path,
        settings: Settings,
        listen: Callable[[str, int], socket.socket],
        check: Callable[[Server], object],
    ) -> None:
        self._home = home
        self._whole = settings
        self._settings = settings.server
        self._listen = listen
        self._check = check
        self._directory = home / "run" / "gateways"
        self._kept = home / "run" / "tls"
        self._records: dict[str, GatewayRecord] = {}
        self._unwritten: set[str] = set()
        self._born: dict[str, float] = {}
        self._failures = 0
        self._died: float | None = None
        self._listener: socket.socket | None = None
        self._certificate: Certificate | None = None
        self._stamp: object = None
        self._looked = 0.0
        self._build = ""
        self._started_with = read_settings(home)
        self.trouble: str | None = None
        self.pending: list[str] = []

    @property
    def names(self) -> list[str]:
        """The names of the gateways that run, those that drain included."""
        return sorted(self._records)

    @property
    def port(self) -> int:
        """The port they serve on."""
        assert self._listener is not None
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def is_rolling(self) -> bool:
        """Say whether some are yet to be replaced, started or ended."""
        seen = [self._seen(name) for name in self.names]
        right = [each for each in seen if each.current and each.serving and not each.draining]
        return len(right) != worker_count(self._settings) or len(right) != len(seen)

    def state(self, name: str) -> str:
        """Return ``starting``, ``serving`` or ``draining``."""
        record = self._records.get(name)
        if record is not None and record.draining:
            return "draining"
        return "serving" if self._serves(name) else "starting"

    def start(self) -> None:
        """Take over the gateways that run already, or open the port and start new ones."""
        self._check(self._settings)
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._certificate = certificate.take(self._settings, self._kept)
        self._put_in_force()
        for path in sorted(self._directory.glob("*.json")):
            with suppress(FreeholdError):
                self._adopt(path)
        self._end_strays()
        if self._listener is None:
            self._listener = self._listen(self._settings.host, self._settings.port)
        for _ in range(worker_count(self._settings)):
            self.watch()

    def restart(self) -> None:
        """Read settings and certificate again, and replace every gateway, one by one.

        What is wrong is raised, and all stays as it was. Where they listen and how many they are
        is settled at the start of control.
        """
        given, now = read_settings(self._home), self._settings
        server = msgspec.structs.replace(
            given.server, host=now.host, port=now.port, workers=now.workers
        )
        self._check(server)
        found = certificate.take(server, self._kept)
        self._whole = msgspec.structs.replace(given, server=server)
        self._settings, self._certificate, self.trouble = server, found, None
        if pending := waiting(self._started_with, given):
            _log.warning("not in force until freehold down and up: %s", ", ".join(pending))
        self.pending = pending
        self._put_in_force()
        for name, record in self._records.items():
            self._write(name, msgspec.structs.replace(record, build=""))

    def watch(self) -> None:
        """Take one step towards what shall run."""
        self._look_at_certificate()
        self._bury()
        for name in list(self._unwritten):
            self._write(name, self._records[name])
        found = step([self._seen(name) for name in self.names], worker_count(self._settings))
        if found == "start":
            self._spawn_when_due()
        elif found != "rest":
            self._drain(found)
        elif not self.is_rolling:
            certificate.forget_others(self._kept, {r.tls for r in self._records.values()})

    def pids(self) -> dict[str, int]:
        """Return the process number of each gateway that was started."""
        return {name: record.pid for name, record in self._records.items()}

    def kill(self, name: str) -> None:
        """End a gateway at once; ``watch`` starts another in its place."""
        record = self._records.get(name)
        if record is not None:
            process.send(Identity(record.pid, record.started), signal.SIGKILL)

    def kill_all(self) -> None:
        """End every gateway at once, also those of an earlier control."""
        for path in self._directory.glob("*.json"):
            with suppress(FreeholdError, OSError):
                record = process.read_private(path, GatewayRecord)
                process.send(Identity(record.pid, record.started), signal.SIGKILL)
        for identity in process.owned_by(self._directory):
            process.send(identity, signal.SIGKILL)

    def stop(self) -> None:
        """End all gateways, giving running requests time to finish."""
        alive = [Identity(record.pid, record.started) for record in self._records.values()]
        for identity in alive:
            process.send(identity, signal.SIGTERM)
        deadline = time.monotonic() + self._settings.shutdown_grace + FORCED_AFTER
        while any(process.is_alive(identity) for identity in alive):
            if time.monotonic() > deadline:
                for identity in alive:
                    process.send(identity, signal.SIGKILL)
                break
            time.sleep(0.02)
        for name in list(self._records):
            self._forget(name)
        certificate.forget_others(self._kept, set())
        if self._listener is not None:
            self._listener.close()

    def _seen(self, name: str) -> Gateway:
        record = self._records[name]
        return Gateway(
            name=name,
            current=record.build == self._build,
            serving=self._serves(name),
            draining=record.draining,
        )

    def _serves(self, name: str) -> bool:
        """Say whether a gateway has said that it accepts connections."""
        return self._socket(name).exists()

    def _put_in_force(self) -> None:
        """Gateways read what is written here, never the file that somebody may be editing."""
        self._stamp = certificate.stamp(self._settings)
        tls = self._certificate.digest if self._certificate else ""
        text = msgspec.json.encode((__version__, self._whole, tls, sys.executable))
        self._build = hashlib.sha256(text).hexdigest()[:16]
        process.write_private(_in_force(self._home), self._whole)

    def _look_at_certificate(self) -> None:
        """Replace the gateways when another certificate lies there, and it fits."""
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY:
            return
        self._looked = now
        stamp = certificate.stamp(self._settings)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._certificate = certificate.take(self._settings, self._kept)
        except FreeholdError as error:
            self.trouble = f"{error.message}; the one before goes on"
            _log.warning("%s", self.trouble)
        else:
            self.trouble = None
            self._put_in_force()

    def _bury(self) -> None:
        for name, record in list(self._records.items()):
            if process.is_alive(Identity(record.pid, record.started)):
                continue
            if not record.draining:
                lived = time.monotonic() - self._born.get(name, 0.0)
                self._failures = 0 if lived > STEADY_AFTER else self._failures + 1
                self._died = time.monotonic()
            self._forget(name)

    def _drain(self, name: str) -> None:
        record = self._records[name]
        self._write(name, msgspec.structs.replace(record, draining=True))
        process.send(Identity(record.pid, record.started), signal.SIGUSR1)

    def _adopt(self, path: Path) -> None:
        record = process.read_private(path, GatewayRecord)
        identity = Identity(record.pid, record.started)
        name = path.stem
        if not process.is_alive(identity):
            path.unlink()
            return
        listener = handover.receive(self._socket(name))
        same_place = (record.host, record.port) == (self._settings.host, self._settings.port)
        if listener is None or not same_place:
            process.send(identity, signal.SIGTERM)
            path.unlink()
            return
        if self._listener is None:
            self._listener = listener
        else:
            listener.close()
        self._records[name] = record
        self._born[name] = time.monotonic()

    def _end_strays(self) -> None:
        """End gateways of which nothing is written: control was killed before it came to that.

        Their port is taken over where they offer it already, and free once they have ended.
        """
        known = {record.pid for record in self._records.values()}
        strays = [one for one in process.owned_by(self._directory) if one.pid not in known]
        for path in self._directory.glob("*.sock") if strays else ():
            if self._listener is None and path.stem not in self._records:
                self._listener = self._ours(handover.receive(path))
        held = self._listener is not None
        for identity in strays:
            process.send(identity, signal.SIGTERM if held else signal.SIGKILL)
        deadline = time.monotonic() + STRAY_ENDS
        while not held and any(map(process.is_alive, strays)) and time.monotonic() < deadline:
            time.sleep(0.01)

    def _ours(self, listener: socket.socket | None) -> socket.socket | None:
        """Return a listener where it is on the port of the settings; else close it."""
        if listener is None or listener.getsockname()[1] == self._settings.port:
            return listener
        listener.close()
        return None

    def _spawn_when_due(self) -> None:
        """Start one more; after deaths less and less often."""
        wait = min(30.0, 0.2 * 2**self._failures)
        if self._died is None or time.monotonic() - self._died >= wait:
            self._spawn(self._free_name())

    def _free_name(self) -> str:
        number = 0
        while f"gateway-{number}" in self._records:
            number += 1
        return f"gateway-{number}"

    def _spawn(self, name: str) -> None:
        assert self._listener is not None
        self._socket(name).unlink(missing_ok=True)
        number = self._listener.fileno()
        tls = self._certificate
        argv = [sys.executable, "-m", "freehold.app.gateway", str(self._home), name, str(number)]
        identity = process.spawn(
            (*argv, str(tls.folder)) if tls else argv,
            self._home / "logs" / f"{name}.log",
            environment=dict(environment()),
            descriptors=(number,),
            owner=self._directory,
        )
        record = GatewayRecord(
            pid=identity.pid,
            started=identity.started,
            build=self._build,
            host=self._settings.host,
            port=self._settings.port,
            tls=tls.digest if tls else "",
        )
        self._write(name, record)
        self._born[name] = time.monotonic()

    def _write(self, name: str, record: GatewayRecord) -> None:
        self._records[name] = record
        self._unwritten.add(name)
        process.write_private(self._directory / f"{name}.json", record)
        self._unwritten.discard(name)

    def _forget(self, name: str) -> None:
        del self._records[name]
        self._unwritten.discard(name)
        (self._directory / f"{name}.json").unlink(missing_ok=True)
        self._socket(name).unlink(missing_ok=True)

    def _socket(self, name: str) -> Path:
        return self._directory / f"{name}.sock"


def read_settings_in_force(home: Path) -> Settings:
    """Return the settings that control has put in force for gateways."""
    return process.read_private(_in_force(home), Settings)


def _in_force(home: Path) -> Path:
    return home / "run" / "settings.json"


def most_gateways(settings: Server) -> int:
    """Return how many gateways there are at most: one more while they are replaced."""
    return worker_count(settings) + 1


def are_running(home: Path) -> bool:
    """Say whether any gateway of a home is alive."""
    for path in home.glob("run/gateways/*.json"):
        with suppress(FreeholdError, OSError):
            record = process.read_private(path, GatewayRecord)
            if process.is_alive(Identity(record.pid, record.started)):
                return True
    return bool(process.owned_by(home / "run" / "gateways"))


def stop_leftovers(home: Path, grace: float) -> int:
    """End the gateways and engines that a killed control left running; return how many."""
    found: list[Identity] = []
    for path in (*home.glob("run/gateways/*.json"), *home.glob("run/replicas/*.json")):
        with suppress(FreeholdError, OSError):
            record = process.read_private(path, _Left)
            if record.pid is not None and record.started is not None:
                found.append(Identity(record.pid, record.started))
        path.unlink(missing_ok=True)
    for owner in ("gateways", "replicas"):
        found += [one for one in process.owned_by(home / "run" / owner) if one not in found]
    found = [identity for identity in found if process.is_alive(identity)]
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
    started: str | None = None
