"""``freehold model card`` and ``freehold model bom``: what describes a version."""

from pathlib import Path

import click
import msgspec

from freehold.cli.client import connected
from freehold.cli.command import Options, command
from freehold.cli.names import complete
from freehold.cli.output import emit
from freehold.cli.versions import path_of
from freehold.errors import Invalid


@command()
@click.argument("name", shell_complete=complete("model", "alias", "version"))
@click.option("--set", "file", metavar="FILE", help="Keep this Markdown file as its card.")
def card(options: Options, name: str, file: str | None) -> None:
    """Show a version's model card, or give it one."""
    with connected(options) as client:
        path = path_of(client, name)[1] + "/card"
        found = client.put(path, {"text": _read(file)}) if file else client.get(path)
    emit(options, found, found["text"] if file is None else f"kept as the card of {name}")


@command()
@click.argument("name", shell_complete=complete("model", "alias", "version"))
def bom(options: Options, name: str) -> None:
    """Print a version's bill of materials (CycloneDX 1.6, JSON)."""
    with connected(options) as client:
        found = client.get(path_of(client, name)[1] + "/bom")
    emit(options, found, msgspec.json.format(msgspec.json.encode(found), indent=2).decode())


def _read(file: str) -> str:
    try:
        return Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid("invalid.usage", f"cannot read {file}: {error}") from error


COMMANDS = (card, bom)
