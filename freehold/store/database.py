"""The database: one SQLite file in WAL mode, opened and brought to the current schema.

Synchronous and used from the control process only: a statement takes microseconds, a commit one
fsync, and nothing on the path of a request comes here.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DatabaseError, OperationalError

from freehold.errors import Broken, FreeholdError, Invalid, Unavailable

HEAD = "0008"
"""The newest migration; a test compares it with the folder of migrations."""


class Database:
    """Open with ``Database(path)``; writes happen in ``transaction()``, reads in ``reading()``."""

    def __init__(self, path: Path, *, migrate: bool = True) -> None:
        """Open the file; without ``migrate`` its schema stays as it is."""
        self.path = path
        # Not as text: a path may hold what means something in a URL.
        self.url = URL.create("sqlite", database=str(path))
        self._engine = create_engine(
            self.url, connect_args={"timeout": 10, "check_same_thread": False}
        )
        # SQLite lets writers of one process starve each other; a lock does not.
        self._turn = threading.Lock()
        event.listen(self._engine, "connect", _configure)
        event.listen(self._engine, "begin", _begin)
        self._readers = self._engine.execution_options(reading=True)
        if migrate:
            self._migrate()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Yield a connection whose work is committed at the end, or rolled back on any error.

        It is the only writer meanwhile, from the start: others wait, up to 10 s.
        """
        with self._turn, self._begun(self._engine) as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a connection to read with: one state of everything, waiting for no writer."""
        with self._begun(self._readers) as connection:
            yield connection

    @contextmanager
    def _begun(self, engine: Engine) -> Iterator[Connection]:
        try:
            with engine.begin() as connection:
                yield connection
        except OperationalError as error:
            raise _explained(error, self.path) from error
        except DatabaseError as error:
            if "malformed" in str(error) or "not a database" in str(error):
                raise _damaged(self.path) from error
            raise

    def close(self) -> None:
        """Close all connections; the file stays."""
        self._engine.dispose()

    def schema_version(self) -> str | None:
        """Return the migration the file is at; None for a new one."""
        with self.reading() as connection:
            known = connection.execute(
                text("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'")
            ).first()
            if known is None:
                return None
            return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()

    def _migrate(self) -> None:
        version = self.schema_version()
        if version == HEAD:
            return
        if version is not None and version > HEAD:
            raise Invalid(
                "invalid.schema",
                f"{self.path} was written by a newer Freehold (schema {version}, this one knows "
                f"{HEAD}): install that version, or restore a backup",
            )
        # Imported here: the migration library is 15 MB of memory that a start without one saves.
        from freehold.store.migrations.upgrade import upgrade

        upgrade(self.url)


def _configure(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we emit BEGIN ourselves, see _begin
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    reading = connection.get_execution_options().get("reading")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _explained(error: OperationalError, path: Path) -> FreeholdError:
    cause = error.orig
    code = getattr(cause, "sqlite_errorcode", None)
    if code is not None:
        code &= 0xFF
    if code == sqlite3.SQLITE_FULL:
        return Unavailable("unavailable.disk", f"no space left for {path}: free some and retry")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return Unavailable("unavailable.home", f"cannot write {path}: check its permissions")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Unavailable("unavailable.database", f"{path} is locked by another process")
    return Unavailable("unavailable.database", f"{path}: {cause}")


def _damaged(path: Path) -> Broken:
    return Broken("broken.database", f"{path} is damaged: restore it from a backup")
