"""``freehold model release, accept``: out of quarantine, and yes to a licence."""

from typing import Any

import click

from freehold.cli.client import connected, part
from freehold.cli.command import Options, command
from freehold.cli.models import model
from freehold.cli.names import complete
from freehold.cli.output import emit
from freehold.cli.versions import resolve
from freehold.cli.words import moment


@command(model)
@click.argument("name", shell_complete=complete("version"))
@click.option("--reason", default="", help="Why it may be used; who confirms need not repeat it.")
def release(options: Options, name: str, reason: str) -> None:
    """Release NAME:VERSION from quarantine.

    The first call asks; a second one confirms: by somebody else, who has not brought the model in,
    and neither of the two has made a key of the other. Both are recorded.
    """
    with connected(options) as client:
        model_name, number = resolve(client, name)
        path = f"/api/models/{part(model_name)}/versions/{number}/release"
        found = client.post(path, {"reason": reason})
    emit(options, found, _told(f"{model_name}:{number}", found["quarantine"]))


@command(model)
@click.argument("name", shell_complete=complete("model"))
def accept(options: Options, name: str) -> None:
    """Accept the licences of a model that the settings ask about."""
    with connected(options) as client:
        found = client.post(f"/api/models/{part(name)}/accept")
    lines = [
        f"{name}: {each['licence']} accepted {moment(each['accepted'])} UTC by "
        f"{each['accepted_by']}"
        for each in found["accepted"]
    ]
    emit(options, found, "\n".join(lines))


def _told(name: str, quarantine: dict[str, Any]) -> str:
    asked = quarantine["release"]
    if quarantine["open"]:
        return (
            f"{asked['asked_by']} asks to release {name}: somebody else must confirm within a "
            f"week, with freehold model release {name}"
        )
    return f"{name} is released: asked by {asked['asked_by']}, confirmed by {asked['confirmed_by']}"
