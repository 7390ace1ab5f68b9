"""What lies on disk about running replicas: who they are, where they answer, their last words."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from freehold.runtime import process
from freehold.runtime.replica import Replica

LAST_WORDS = 8000
IDLE_WORDS = (
    "Failed to init server", "exiting due to", "please consider", "for example:",
)  # fmt: skip
"""What engines say last, and what says nothing: that it ended, and advice about their options."""
"""Bytes of an engine's log that are looked at when it has ended."""


class Notes:
    """The files of a pool: records under ``directory``, logs under ``logs``."""

    def __init__(self, directory: Path, logs: Path) -> None:
        self._directory = directory
        self._logs = logs
        self._unwritten: set[str] = set()

    def write(self, replica: Replica) -> None:
        """Remember a replica; on a full disk later. Its process is found without it too."""
        self._unwritten.discard(replica.id)
        try:
            process.write_private(self.record(replica.id), replica)
        except OSError:
            self._unwritten.add(replica.id)

    def write_again(self, replicas: Mapping[str, Replica]) -> None:
        """Write what could not be written before."""
        for replica_id in list(self._unwritten):
            replica = replicas.get(replica_id)
            if replica is not None and replica.pid is not None:
                self.write(replica)
            else:
                self._unwritten.discard(replica_id)

    def last_words(self, replica: Replica) -> str:
        """Return why an engine ended, as far as it said so, and where the rest stands."""
        lines: list[str] = []
        with suppress(OSError), self.log(replica).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_WORDS))
            lines = file.read(LAST_WORDS).decode("utf-8", "replace").split("\n")
        told = [line for line in lines if " E " in line or "rror" in line]
        telling = [line for line in told if not any(phrase in line for phrase in IDLE_WORDS)]
        why = f": {(telling or told)[-1].strip()[:300]}" if told else ""
        return f"the engine ended{why}; more is in {self.log(replica)}"

    def forget(self, replica_id: str) -> None:
        """Remove the files of a replica."""
        with suppress(OSError):  # what is left there names a process that is no more
            self.record(replica_id).unlink(missing_ok=True)
            self.ready_file(replica_id).unlink(missing_ok=True)

    def record(self, replica_id: str) -> Path:
        """Return where a replica is remembered."""
        return self._directory / f"{replica_id}.json"

    def ready_file(self, replica_id: str) -> Path:
        """Return where an engine says that it answers."""
        return self._directory / f"{replica_id}.ready"

    def log(self, replica: Replica) -> Path:
        """Return where an engine's output goes."""
        return self._logs / f"engine-{replica.launch.deployment}.log"
