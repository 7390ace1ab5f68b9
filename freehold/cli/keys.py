"""``freehold key ...``: made, listed, revoked."""

import re
import time

import click

from freehold.cli.client import connected, part
from freehold.cli.command import Options, command
from freehold.cli.output import emit, say, table
from freehold.policy.permissions import ROLES

_SPAN = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


@click.group()
def key() -> None:
    """API keys: who may do what."""


@command(key)
@click.option("--principal", required=True, help="Who will use it.")
@click.option("--role", type=click.Choice(list(ROLES)), default="developer", show_default=True)
@click.option("--expires", metavar="TIME", help="When it ends from now on: 30d, 12h, 90s.")
def create(options: Options, principal: str, role: str, expires: str | None) -> None:
    """Make a key. Its secret is shown once, here."""
    body: dict[str, object] = {"principal": principal, "role": role}
    if expires is not None:
        body["expires_in"] = _span(expires)
    with connected(options) as client:
        created = client.post("/api/keys", body)
    if not options.as_json:
        say(f"key {created['id']} for {principal} ({role}); keep it, it is not shown again:")
    emit(options, created, created["key"])


@command(key, "list")
def list_(options: Options) -> None:
    """List keys, also dead ones; never a secret."""
    with connected(options) as client:
        found = client.get("/api/keys")
    rows = [(k["id"], k["principal"], k["role"], k["state"], _day(k["created"]), _day(k["expires"]))
            for k in found]  # fmt: skip
    head = ("ID", "PRINCIPAL", "ROLE", "STATE", "CREATED", "EXPIRES")
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
    if found is None:
        raise click.BadParameter("a number and s, m, h or d, as 30d", param_hint="--expires")
    return float(found[1]) * _SECONDS[found[2]]


def _day(moment: float | None) -> str | None:
    return None if moment is None else time.strftime("%Y-%m-%d %H:%M", time.gmtime(moment))
