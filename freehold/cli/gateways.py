"""``freehold restart``: settings and certificates in force without a dropped request."""

import time
from typing import Any

import click

from freehold.cli.client import Client, connected
from freehold.cli.command import Options, command
from freehold.cli.output import emit
from freehold.errors import Unavailable

PATIENCE = 300.0
BEAT = 0.2


@command()
@click.option("--no-wait", is_flag=True, help="Do not wait until all are replaced.")
def restart(options: Options, no_wait: bool) -> None:
    """Replace the gateways one by one; no request is dropped.

    Reads freehold.toml and the certificate again. What is wrong in them is refused, and everything
    stays as it was. Control itself, its models and engines go on, by the settings they started
    with: which changes wait for freehold down and freehold up is said.
    """
    with connected(options) as client:
        if not client.serving:
            raise Unavailable("unavailable.freehold", "nothing runs there: start it, freehold up")
        found = client.post("/api/gateways/restart")
        if not no_wait:
            found = _replaced(client)
    text = "gateways are being replaced" if no_wait else "all gateways replaced"
    if found["pending"]:
        changed = ", ".join(found["pending"])
        text += f"\nchanged, and not in force until freehold down and freehold up: {changed}"
    emit(options, found, text)


def _replaced(client: Client) -> Any:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = client.get("/api/gateways")
        if not found["rolling"]:
            return found
        time.sleep(BEAT)
    raise Unavailable(
        "unavailable.restart",
        f"not all gateways were replaced within {PATIENCE:.0f} s: see logs/gateway-*.log in the "
        "home; those of before go on serving",
    )
