"""``freehold``: the entry, its global options, and what an error looks like on a terminal."""

import sys
from typing import Any

import click

from freehold import __version__
from freehold.cli import chat, completion, deployments, doctor, keys, lifecycle, models
from freehold.errors import FreeholdError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="freehold")
@click.option("--home", metavar="DIR", help="Home directory [$FREEHOLD_HOME, else ~/.freehold].")
@click.option("--url", metavar="URL", help="Speak to the Freehold running there.")
@click.option("--key", metavar="KEY", help="API key for --url [$FREEHOLD_KEY].")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_context
def cli(context: click.Context, /, **options: Any) -> None:
    """Own your AI outright: run open-weights models on your own hardware."""
    context.obj = options


for command in (
    lifecycle.up,
    lifecycle.down,
    lifecycle.status,
    chat.chat,
    models.model,
    deployments.deploy,
    deployments.undeploy,
    deployments.apply,
    deployments.export,
    keys.key,
    doctor.doctor,
    completion.completion,
):
    cli.add_command(command)


def main() -> None:
    """Run the command line: exit 0 on success, 1 on a refused or failed act, 2 on wrong usage."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except FreeholdError as error:
        click.echo(f"freehold: {error.message}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)


if __name__ == "__main__":
    main()
