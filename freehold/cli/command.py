"""What every command has in common: its global options, wherever they stand on the line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from freehold.errors import FreeholdError
from freehold.settings import environment, home_directory


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The global options, resolved."""

    home: Path
    url: str | None
    key: str | None
    ca: str | None
    certificate: str | None
    as_json: bool


def command(group: click.Group | None = None, name: str | None = None) -> Callable[..., Any]:
    """Declare a command; its function gets ``Options`` first, then its own parameters."""

    def declare(function: Callable[..., None]) -> click.Command:
        def call(
            home: str | None,
            ca: str | None,
            as_json: bool,
            key: str | None = None,
            certificate: str | None = None,
            url: str | None = None,
            **own: Any,
        ) -> None:
            given = click.get_current_context().find_root().obj or {}
            options = Options(
                home=home_directory(home or given.get("home")),
                url=url or given.get("url") or environment().get("FREEHOLD_URL"),
                key=key or given.get("key") or environment().get("FREEHOLD_KEY"),
                ca=ca or given.get("ca") or environment().get("FREEHOLD_CA"),
                certificate=certificate
                or given.get("certificate")
                or environment().get("FREEHOLD_CERTIFICATE"),
                as_json=as_json or bool(given.get("as_json")),
            )
            try:
                function(options, **own)
            except FreeholdError as error:
                if options.as_json:
                    click.echo(_failure(error))
                raise

        call.__doc__ = function.__doc__
        call.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
        shared = {
            "--home": click.option("--home", metavar="DIR", help="Home directory."),
            "--url": click.option(
                "--url", metavar="URL", help="Speak to the Freehold running there."
            ),
            "--key": click.option("--key", metavar="KEY", help="API key for --url."),
            "--ca": click.option("--ca", metavar="FILE", help="PEM of an authority to trust."),
            "--certificate": click.option(
                "--certificate", metavar="FILE", help="PEM of a client certificate and its key."
            ),
            "--json": click.option(
                "--json", "as_json", is_flag=True, help="One JSON document on stdout."
            ),
        }
        own = {option for each in call.__click_params__ for option in each.opts}  # type: ignore[attr-defined]
        for name_, option in reversed(shared.items()):
            if name_ not in own:  # deploy's --url names an endpoint, sign's --key a file
                call = option(call)
        made = click.command(name or function.__name__.rstrip("_").replace("_", "-"))(call)
        if group is not None:
            group.add_command(made)
        return made

    return declare


def _failure(error: FreeholdError) -> str:
    problem: dict[str, object] = {"code": error.code, "message": error.message}
    if error.param is not None:
        problem["param"] = error.param
    return msgspec.json.format(msgspec.json.encode({"error": problem}), indent=2).decode()
