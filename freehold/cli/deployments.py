"""``freehold deploy, undeploy, apply, export``: the desired state."""

import sys
from pathlib import Path
from typing import Any

import click

from freehold.cli.client import Client, connected, part
from freehold.cli.command import Options, command
from freehold.cli.output import bar, emit, follow, say
from freehold.errors import FreeholdError, Invalid, Unavailable


@command()
@click.argument("name", required=False)
@click.option("--as", "deployment", metavar="DEPLOYMENT", help="Its name [the model's].")
@click.option("--replicas", type=int, default=1, show_default=True, help="How many run.")
@click.option("--url", "urls", multiple=True, metavar="URL", help="An endpoint; may be repeated.")
@click.option("--url2", "more", multiple=True, metavar="URL", help="A further endpoint.")
@click.option("--upstream-model", metavar="M", help="What the endpoint calls the model.")
@click.option("--upstream-key", metavar="REF", help="Its key: file:PATH or env:NAME.")
@click.option("--place", type=click.Choice(["local", "site", "cloud"]), help="Where data goes.")
@click.option("--fallback", "fallbacks", multiple=True, help="Asked when this one fails.")
@click.option("--context", type=int, help="Context in tokens.")
@click.option("--slots", type=int, help="Requests answered at once by a replica.")
@click.option("--threads", type=int, help="Processor threads a replica.")
@click.option("--idle-unload", type=float, help="Unload after so many idle seconds.")
@click.option("--wait", is_flag=True, help="Return once it answers.")
def deploy(
    options: Options,
    name: str | None,
    deployment: str | None,
    urls: tuple[str, ...],
    more: tuple[str, ...],
    wait: bool,
    **given: Any,
) -> None:
    """Run NAME[:VERSION or ALIAS], or the endpoints given by --url, as a deployment."""
    endpoints = [*urls, *more]
    if (name is None) == (not endpoints):
        raise click.UsageError("give either a model's NAME or --url URL")
    if endpoints and not deployment:
        raise click.UsageError("endpoints need a name: --as DEPLOYMENT")
    chosen = deployment or str(name).partition(":")[0]
    body = {key: value for key, value in given.items() if value not in (None, ())}
    body |= {"name": chosen, "urls": endpoints} if endpoints else {"name": chosen, "model": name}
    if endpoints:
        body["replicas"] = len(endpoints)
    with connected(options) as client:
        result = client.put(f"/api/deployments/{part(chosen)}", body)
        if wait and client.serving:
            result = _await(client, chosen)
        state = result["state"] if client.serving else "to be run: freehold up starts it"
    emit(options, result, f"{chosen} is {state}")


@command()
@click.argument("deployment")
def undeploy(options: Options, deployment: str) -> None:
    """Remove a deployment; requests that run there are finished."""
    with connected(options) as client:
        result = client.delete(f"/api/deployments/{part(deployment)}")
    emit(options, result, f"{deployment} is gone")


@command()
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--plan", is_flag=True, help="Show what would change, and change nothing.")
def apply(options: Options, file: Path, plan: bool) -> None:
    """Make the whole desired state that of FILE."""
    text = _read(file)
    with connected(options) as client:
        planned = client.post("/api/desired/plan", {"document": text})
        if not options.as_json:
            say("\n".join(map(_line, planned["changes"])) or "nothing to change")
        if plan:
            emit(options, planned, "")
            return
        result = client.put("/api/desired", {"document": text})
        failures = []
        for job in result["jobs"]:
            try:
                follow(client, job, job["subject"].rpartition(" as ")[2])
            except FreeholdError as error:
                failures.append(f"{job['subject']}: {error.message}")
    if failures:
        raise Unavailable("unavailable.source", "; ".join(failures))
    emit(options, result, f"applied {len(result['changes'])} changes")


@command()
def export(options: Options) -> None:
    """Print the whole desired state as TOML; never a secret."""
    with connected(options) as client:
        found = client.get("/api/desired")
    emit(options, found, found["document"].rstrip("\n"))


def _await(client: Client, name: str) -> dict[str, Any]:
    with bar(name) as shown:
        while True:
            found: dict[str, Any] = client.get(f"/api/deployments/{part(name)}", wait="0.5")
            if found["state"] == "ready":
                return found
            if found["state"] in ("failed", "missing"):
                raise Unavailable("unavailable.deployment", f"{name}: {found['reason']}")
            shown.show("load", int(found["progress"] * 100), 100)


def _read(file: Path) -> str:
    try:
        if str(file) == "-":
            return sys.stdin.read()
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid("invalid.document", f"cannot read {file}: {error}") from error


def _line(change: dict[str, Any]) -> str:
    fields = f" ({', '.join(change['fields'])})" if change["fields"] else ""
    return f"{change['act']:<7} {change['kind']} {change['name']}{fields}"
