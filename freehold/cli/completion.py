"""``freehold completion``: tab completion for a shell."""

import click
from click.shell_completion import get_completion_class

from freehold.cli.command import Options, command
from freehold.cli.output import emit


@command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(options: Options, shell: str) -> None:
    """Print what makes SHELL complete commands, and the names in a home on this machine.

    For bash: put  eval "$(freehold completion bash)"  into ~/.bashrc.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    root = click.get_current_context().find_root().command
    script = kind(root, {}, "freehold", "_FREEHOLD_COMPLETE").source()
    emit(options, {"shell": shell, "script": script}, script)
