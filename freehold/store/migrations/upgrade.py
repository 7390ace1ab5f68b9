"""Bring a database file to the newest schema."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import URL


def upgrade(url: URL, to: str = "head") -> None:
    """Run every migration up to ``to`` that the database at ``url`` has not seen."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["url"] = url
    command.upgrade(config, to)
