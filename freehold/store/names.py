"""The names in a home, for those who only want to list them: quick, and nothing is touched."""

import sqlite3
from contextlib import closing
from pathlib import Path

_QUERIES = {
    "model": "SELECT name FROM models ORDER BY name",
    "alias": "SELECT DISTINCT model || ':' || alias FROM alias_moves ORDER BY 1",
    "version": "SELECT model || ':' || number FROM versions ORDER BY model, number",
    "deployment": "SELECT name FROM deployments ORDER BY name",
}


def names(database: Path, kind: str) -> list[str]:
    """Return the names of a kind: model, alias, version, deployment; none where there is no home.

    Aliases and versions are ``MODEL:LABEL``.
    """
    if not database.is_file():
        return []
    try:
        # Read-only, and without SQLAlchemy: its import alone takes longer than a key press may.
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=0.2)) as db:
            return [str(name) for (name,) in db.execute(_QUERIES[kind])]
    except sqlite3.Error:
        return []
