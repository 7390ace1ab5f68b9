"""The schema and its migrations; what a damaged or newer file says."""

import re
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from freehold.errors import Broken, Invalid
from freehold.store import credentials, migrations, versions
from freehold.store.database import HEAD, Database
from freehold.store.migrations.upgrade import upgrade
from freehold.store.tables import METADATA


def test_migrations_make_exactly_the_tables(tmp_path: Path) -> None:
    database = Database(tmp_path / "f.db")
    database.close()
    engine = create_engine(database.url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []
    engine.dispose()


def test_head_is_the_newest_migration() -> None:
    folder = Path(migrations.__file__).parent / "versions"
    numbers = [re.match(r"\d+", path.name)[0] for path in folder.glob("0*.py")]  # type: ignore[index]
    assert max(numbers) == HEAD


def test_a_second_opening_changes_nothing(tmp_path: Path) -> None:
    Database(tmp_path / "f.db").close()
    database = Database(tmp_path / "f.db")
    assert database.schema_version() == HEAD
    database.close()


def test_a_newer_file_is_left_alone(tmp_path: Path) -> None:
    database = Database(tmp_path / "f.db")
    with database.transaction() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(Invalid, match="newer Freehold"):
        Database(tmp_path / "f.db")


def test_garbage_is_named(tmp_path: Path) -> None:
    (tmp_path / "f.db").write_bytes(b"garbage" * 1000)
    with pytest.raises(Broken, match="restore it from a backup"):
        Database(tmp_path / "f.db")


def test_an_error_rolls_everything_back(tmp_path: Path) -> None:
    database = Database(tmp_path / "f.db")

    def fail() -> None:
        with database.transaction() as connection:
            connection.execute(text("INSERT INTO models VALUES ('m', 0)"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with database.transaction() as connection:
        assert connection.execute(text("SELECT count(*) FROM models")).scalar() == 0
    database.close()


def test_a_reader_waits_for_no_writer(tmp_path: Path) -> None:
    database = Database(tmp_path / "f.db")
    with database.transaction() as writing:
        writing.execute(text("INSERT INTO models VALUES ('m', 0)"))
        with database.reading() as reading:
            assert reading.execute(text("SELECT count(*) FROM models")).scalar() == 0
    database.close()


@pytest.mark.parametrize("name", ["a?mode=memory", "b%41", "c#x", "d%20e"])
def test_a_home_may_be_called_anything(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    Database(tmp_path / name / "f.db").close()
    assert (tmp_path / name / "f.db").exists()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_who_only_looks_migrates_nothing(tmp_path: Path) -> None:
    database = Database(tmp_path / "f.db", migrate=False)
    assert database.schema_version() is None
    database.close()


def test_numbers_of_an_older_file_are_not_used_again(tmp_path: Path) -> None:
    database = Database(tmp_path / "f.db", migrate=False)
    upgrade(database.url, "0002")
    values = "'m', 7, 'd', 1, 'gguf', '{}', 's', 'r', 0, 'me'"
    columns = "model, number, digest, bytes, format, manifest, source, resolved, created"
    with database.transaction() as connection:
        connection.execute(text("INSERT INTO models VALUES ('m', 0)"))
        connection.execute(text(f"INSERT INTO versions ({columns}, created_by) VALUES ({values})"))
    database.close()
    database = Database(tmp_path / "f.db")
    with database.transaction() as connection:
        versions.remove_version(connection, "m", 7)
        assert versions.next_number(connection, "m") == 8
    database.close()


def test_keys_of_an_older_file_stay_and_have_no_known_maker(tmp_path: Path) -> None:
    database = Database(tmp_path / "f.db", migrate=False)
    upgrade(database.url, "0007")
    with database.transaction() as connection:
        connection.execute(
            text(
                "INSERT INTO keys (id, principal, role, digest, created) "
                "VALUES ('a', 'ann', 'admin', 'd', 1.0)"
            )
        )
    database.close()
    database = Database(tmp_path / "f.db")
    with database.reading() as connection:
        (row,) = credentials.keys(connection)
    assert (row.principal, row.created_by) == ("ann", None)
    database.close()
