"""The home directory: where everything a Freehold keeps lies, and who may work in it."""

import fcntl
import os
from pathlib import Path

from freehold.errors import Conflict, Unavailable


class Home:
    """Paths under FREEHOLD_HOME. Opening it makes it, and checks that it can be written."""

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            probe = root / ".writable"
            probe.touch(mode=0o600)
            probe.unlink()
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
    def admin_key(self) -> Path:
        """The first administrator's key (mode 0600)."""
        return self.root / "admin.key"

    @property
    def endpoint(self) -> Path:
        """The URL of the running Freehold."""
        return self.run / "url"

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
        if not self.is_locked(self.root):
            return None
        text = (self.run / "control.lock").read_text(encoding="ascii")
        return int(text) if text.isdigit() else None

    def lock(self) -> int:
        """Take the home for this process; ``Conflict`` when another control has it."""
        self.run.mkdir(exist_ok=True, mode=0o700)
        descriptor = os.open(self.run / "control.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise Conflict(
                "conflict.running",
                f"Freehold already runs in {self.root} (process {holder or 'unknown'}): use it, "
                "or stop it with freehold down",
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        return descriptor


def write_secret(path: Path, text: str) -> None:
    """Write a secret that only its owner can read, whole or not at all."""
    partial = path.with_suffix(".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
