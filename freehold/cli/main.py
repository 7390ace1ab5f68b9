"""``freehold``: the entry, its global options, and what an error looks like on a terminal."""

import os
import sys
from importlib import import_module
from types import MappingProxyType
from typing import Any

import click
from click.shell_completion import CompletionItem

from freehold import __version__
from freehold.errors import FreeholdError

COMMANDS = MappingProxyType(
    {
        "up": ("lifecycle", "Start, and serve until Ctrl-C."),
        "down": ("lifecycle", "Stop what runs on a home."),
        "status": ("lifecycle", "Show what runs, and how much it takes."),
        "restart": ("gateways", "Replace the gateways; no request is dropped."),
        "chat": ("chat", "Ask, and print the answer as it comes."),
        "model": ("model", "Models: bring them in, look at them, move aliases."),
        "job": ("jobs", "Long work: what runs, and ending it."),
        "repository": ("repositories", "Our own registry: who may pull and push."),
        "deploy": ("deployments", "Run a model, or endpoints, as a deployment."),
        "engine": ("engine", "Engines: build one for this machine, tune deployments."),
        "undeploy": ("deployments", "Remove a deployment."),
        "apply": ("desired", "Make the whole desired state that of a file."),
        "export": ("desired", "Print the whole desired state."),
        "key": ("keys", "API keys: who may do what."),
        "limit": ("limits", "Limits and budgets: how much may they use?"),
        "usage": ("records", "Show who used what."),
        "audit": ("records", "The record of every request and act."),
        "doctor": ("doctor", "Check machine, installation and home."),
        "completion": ("completion", "Print tab completion for a shell."),
    }
)
"""Name to (module, summary). A command is imported when it is used, not to list it."""


class Commands(click.Group):
    """The commands of ``COMMANDS``."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names, in the order in which people meet them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"freehold.cli.{COMMANDS[cmd_name][0]}")
        found: click.Command = getattr(module, cmd_name)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete names without importing what they stand for."""
        found = [
            CompletionItem(name, help=about)
            for name, (_, about) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="freehold")
@click.option("--home", metavar="DIR", help="Home directory [$FREEHOLD_HOME, else ~/.freehold].")
@click.option("--url", metavar="URL", help="Speak to the Freehold running there.")
@click.option("--key", metavar="KEY", help="API key for --url [$FREEHOLD_KEY].")
@click.option("--ca", metavar="FILE", help="PEM of an authority to trust for --url [$FREEHOLD_CA].")
@click.option("--certificate", metavar="FILE", help="PEM of a client certificate and its key.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_context
def cli(context: click.Context, /, **options: Any) -> None:
    """Own your AI outright: run open-weights models on your own hardware."""
    context.obj = options


def main() -> None:
    """Run the command line: exit 0 on success, 1 on a refused or failed act, 2 on wrong usage."""
    os.umask(0o077)
    try:
        code = cli.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except FreeholdError as error:
        click.echo(f"freehold: {error.message}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)


if __name__ == "__main__":
    main()
