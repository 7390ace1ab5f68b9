"""What the doctor says of a home, and that it only looks."""

import resource
import signal
from pathlib import Path

from sqlalchemy import text

from freehold.cli.doctor import _database, _home
from freehold.control.home import Home
from freehold.settings import Settings
from freehold.store.database import Database


def test_files_that_others_can_write_are_named(tmp_path: Path) -> None:
    home = Home(tmp_path / "h")
    home.audit.mkdir()
    assert not [found for found in _home(home.root, Settings(), False) if found.state == "failed"]
    home.audit.chmod(0o777)
    failed = [found for found in _home(home.root, Settings(), False) if found.state == "failed"]
    assert [str(home.audit) in found.text for found in failed] == [True]


def test_a_full_disk_is_a_failure(tmp_path: Path) -> None:
    home = Home(tmp_path / "h")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        found = list(_home(home.root, Settings(), False))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert ["nothing is answered" in each.text for each in found if each.state == "failed"] == [
        True
    ]


def test_it_migrates_no_database(tmp_path: Path) -> None:
    home = Home(tmp_path / "h")
    database = Database(home.database)
    with database.transaction() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0002'"))
        connection.execute(text("DROP TABLE numbers"))
    database.close()
    found = [each.text for each in _database(home.root, Settings(), False)]
    assert found[0] == "schema 0002"
    database = Database(home.database, migrate=False)
    assert database.schema_version() == "0002"
    database.close()
