"""Ask before something is removed, where somebody is there to be asked."""

import sys

import click

from freehold.cli.command import Options
from freehold.errors import Refused


def can_ask(options: Options) -> bool:
    """Say whether a person sits at the terminal and reads what is asked."""
    return sys.stdin.isatty() and sys.stderr.isatty() and not options.as_json


def agreed(what: str) -> None:
    """Ask whether ``what`` shall be removed; ``Refused`` unless the answer is yes."""
    if not click.confirm(f"remove {what}?", err=True):
        raise Refused("refused.unconfirmed", "nothing was changed")
