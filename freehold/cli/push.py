"""``freehold model push``: a version to a registry elsewhere."""

import click

from freehold.cli.client import connected
from freehold.cli.command import Options, command
from freehold.cli.names import complete
from freehold.cli.output import emit, follow
from freehold.cli.versions import path_of


@command()
@click.argument("name", shell_complete=complete("model", "alias", "version"))
@click.argument("target")
def push(options: Options, name: str, target: str) -> None:
    """Send a version to a registry, as a ModelPack artifact.

    TARGET is oci://HOST[:PORT]/REPOSITORY[:TAG]; without a tag it is the version's number.
    """
    with connected(options) as client:
        title, path = path_of(client, name)
        result = follow(client, client.post(f"{path}/push", {"target": target}), title)
    emit(options, result, f"pushed {title} to {result['target']}  {result['digest']}")


COMMANDS = (push,)
