"""``freehold model``: the group with all its commands, each from the file it is in."""

from freehold.cli import convert, releases
from freehold.cli.models import model

__all__ = ["convert", "model", "releases"]
