"""The home directory: where everything a Freehold keeps lies, and who may work in it."""

import fcntl
import os
import time
from pathlib import Path

import msgspec

from freehold.errors import Conflict, FreeholdError, Unavailable
from freehold.identity.keys import sync_directory
from freehold.runtime import process
from freehold.runtime.process import Identity

LOOKERS = 0.5
"""Seconds in which a lock that others only try falls again."""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where a Freehold serves, where its control listens, and which process wrote that."""

    pid: int
    started: str
    url: str
    control_url: str


class Home:
    """Paths under FREEHOLD_HOME. Opening it makes it, and checks that it can be written."""

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            probe = root / ".writable"
            probe.touch(mode=0o600)
            probe.unlink()
            _refuse_strangers(root)
        except OSError as error:
            raise Unavailable(
                "unavailable.home",
                f"cannot write to {root}: {error.strerror}; make it writable, or choose another "
                "with --home",
            ) from error

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.root / "freehold.db"

    @property
    def blobs(self) -> Path:
        """Model bytes by digest."""
        return self.root / "blobs"

    @property
    def engines(self) -> Path:
        """Engines built for this machine."""
        return self.root / "engines"

    @property
    def scratch(self) -> Path:
        """Downloads under way."""
        return self.root / "scratch"

    @property
    def audit(self) -> Path:
        """The journals."""
        return self.root / "audit"

    @property
    def logs(self) -> Path:
        """Logs of gateways and engines."""
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """What is true only while processes run."""
        return self.root / "run"

    @property
    def pepper(self) -> Path:
        """The secret under which keys are hashed."""
        return self.root / "pepper"

    @property
    def snapshot(self) -> Path:
        """The published snapshot."""
        return self.run / "snapshot.json"

    @property
    def quotas(self) -> Path:
        """The shared numbers behind limits."""
        return self.run / "quotas"

    @property
    def admin_key(self) -> Path:
        """The home's own key, an administrator's (mode 0600); ``freehold up`` sees to it."""
        return self.root / "admin.key"

    def read_admin_key(self) -> str | None:
        """Return the home's own key; None where none can be read."""
        try:
            return self.admin_key.read_text(encoding="ascii").strip() or None
        except (OSError, UnicodeDecodeError):
            return None

    @property
    def url(self) -> Path:
        """The URL of the running Freehold, for people and scripts."""
        return self.run / "url"

    @property
    def endpoint(self) -> Path:
        """Where the running Freehold is reached, and which process that is."""
        return self.run / "endpoint.json"

    def announce(self, url: str, control_url: str) -> None:
        """Tell the command line where this process serves."""
        pid = os.getpid()
        found = Endpoint(
            pid=pid, started=process.birth(pid) or "", url=url, control_url=control_url
        )
        process.write_private(self.endpoint, found)
        write_secret(self.url, url)

    def retract(self) -> None:
        """Serve nowhere any more."""
        self.endpoint.unlink(missing_ok=True)
        self.url.unlink(missing_ok=True)

    @staticmethod
    def reach(root: Path) -> Endpoint | None:
        """Return where the Freehold of a home is reached; None when none serves there.

        Only what the process that holds the home has written itself: an address that a dead one
        left behind may be anybody's by now, and an administrator's key goes there.
        """
        try:
            found = process.read_private(root / "run" / "endpoint.json", Endpoint)
        except (FreeholdError, OSError):
            return None
        holds = Home.is_locked(root) and _holder(root) == found.pid
        return found if holds and process.is_alive(Identity(found.pid, found.started)) else None

    @staticmethod
    def is_locked(root: Path) -> bool:
        """Say whether some control has the home; touches nothing."""
        try:
            descriptor = os.open(root / "run" / "control.lock", os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False

    def holder(self) -> int | None:
        """Return the process that has the home, if any."""
        return _holder(self.root) if self.is_locked(self.root) else None

    def lock(self) -> int:
        """Take the home for this process; ``Conflict`` when another control has it."""
        self.run.mkdir(exist_ok=True, mode=0o700)
        descriptor = os.open(self.run / "control.lock", os.O_RDWR | os.O_CREAT, 0o600)
        if not _locks(descriptor):
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise Conflict(
                "conflict.running",
                f"Freehold already runs in {self.root} (process {holder or 'unknown'}): use it, "
                "or stop it with freehold down",
            )
        self.retract()  # what a killed one left: nobody serves there
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        return descriptor


def write_secret(path: Path, text: str) -> None:
    """Write a secret that only its owner can read, whole or not at all, and durably."""
    partial = path.with_name(f"{path.name}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync_directory(path.parent)


def _holder(root: Path) -> int | None:
    try:
        text = (root / "run" / "control.lock").read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if text.isdigit() else None


def _locks(descriptor: int) -> bool:
    """Take the lock; those who only look whether it is held have it for a moment."""
    deadline = time.monotonic() + LOOKERS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        else:
            return True


def _refuse_strangers(root: Path) -> None:
    """Whoever can write a home decides what runs as its owner."""
    status = root.stat()
    if status.st_uid != os.geteuid():
        raise Unavailable(
            "unavailable.home", f"{root} belongs to another user: choose another with --home"
        )
    if status.st_mode & 0o022:
        raise Unavailable(
            "unavailable.home",
            f"others can write to {root}: run chmod go-w on it first",
        )
