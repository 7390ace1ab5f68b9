"""Completion of the names in a home on this machine, read straight from its database."""

from collections.abc import Callable

import click

from freehold.settings import home_directory
from freehold.store.names import names

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def complete(*kinds: str) -> Complete:
    """Return what completes the names of these kinds; see ``store.names``."""

    def found(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
        given = context.params.get("home") or context.find_root().params.get("home")
        database = home_directory(given) / "freehold.db"
        known = [name for kind in kinds for name in names(database, kind)]
        return [name for name in known if name.startswith(incomplete)]

    return found
