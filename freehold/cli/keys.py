"""``freehold key ...``: made, listed, revoked."""

import re

import click

from freehold.cli.client import connected, part
from freehold.cli.command import Options, command
from freehold.cli.output import emit, say, table
from freehold.cli.words import moment
from freehold.policy.permissions import ROLES

_SPAN = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@click.group()
def key() -> None:
    """API keys: who may do what."""


@command(key)
@click.option("--principal", required=True, help="Who will use it.")
@click.option("--role", type=click.Choice(list(ROLES)), default="developer", show_default=True)
@click.option(
    "--expires", metavar="TIME", help="When it ends, from now on: 30d, 12h, 5m, 90s [never]."
)
@click.option("--team", help="The team whose limits it shares.")
@click.option("--budget", multiple=True, metavar="LIMIT", help="As tokens=100000/day, money=25.50.")
def create(
    options: Options,
    principal: str,
    role: str,
    expires: str | None,
    team: str | None,
    budget: tuple[str, ...],
) -> None:
    """Make a key. Its secret is shown once, here."""
    body: dict[str, object] = {"principal": principal, "role": role, "budget": budget}
    if team is not None:
        body["team"] = team
    if expires is not None:
        body["expires_in"] = _span(expires)
    with connected(options, creates=True) as client:
        created = client.post("/api/keys", body)
    if not options.as_json:
        ends = moment(created["expires"])
        until = f"until {ends} UTC" if ends else "without an end"
        say(f"key {created['id']} for {principal} ({role}), {until}; it is not shown again:")
    emit(options, created, created["key"])


@command(key, "list")
def list_(options: Options) -> None:
    """List keys, also dead ones; never a secret."""
    with connected(options) as client:
        found = client.get("/api/keys")
    rows = [(k["id"], k["principal"], k["role"], k["team"], k["state"], moment(k["created"]),
             k["created_by"], moment(k["expires"])) for k in found]  # fmt: skip
    head = ("ID", "PRINCIPAL", "ROLE", "TEAM", "STATE", "CREATED", "BY", "EXPIRES")
    emit(options, found, table(head, rows, "no keys"))


@command(key)
@click.argument("key_id", metavar="ID")
def revoke(options: Options, key_id: str) -> None:
    """Revoke a key, at once and in every gateway."""
    with connected(options) as client:
        result = client.delete(f"/api/keys/{part(key_id)}")
    emit(options, result, f"key {key_id} is revoked")


def _span(text: str) -> float:
    found = _SPAN.fullmatch(text)
    if found is not None and found[2]:
        return float(found[1]) * _SECONDS[found[2]]
    number = found[1] if found else "30"
    raise click.BadParameter(
        f"{text!r:.40} is no time: say {number}d, {number}h, {number}m or {number}s",
        param_hint="--expires",
    )
