"""``freehold deploy, undeploy``: one deployment."""

from typing import Any

import click

from freehold.cli.client import Client, connected, part
from freehold.cli.command import Options, command
from freehold.cli.engine import run_tune, tuned
from freehold.cli.names import complete
from freehold.cli.output import emit, say
from freehold.cli.progress import progress
from freehold.errors import Unavailable

HOPELESS = ("failed", "missing")
PEM = click.Path(exists=True, dir_okay=False, resolve_path=True)


@command()
@click.argument("name", required=False, shell_complete=complete("model", "alias", "version"))
@click.option("--as", "deployment", metavar="DEPLOYMENT", help="Its name [the model's].")
@click.option("--replicas", type=int, default=1, show_default=True, help="How many run.")
@click.option("--url", "urls", multiple=True, metavar="URL", help="An endpoint; may be repeated.")
@click.option("--url2", "more", multiple=True, metavar="URL", hidden=True)
@click.option("--upstream-model", metavar="M", help="What the endpoint calls the model.")
@click.option("--upstream-key", metavar="REF", help="Its key: file:PATH or env:NAME.")
@click.option("--weight", "weights", multiple=True, type=float, help="Speed of each endpoint.")
@click.option("--upstream-ca", type=PEM, help="PEM of the authority that signs the endpoints.")
@click.option("--upstream-certificate", type=PEM, help="PEM of the client certificate they want.")
@click.option("--upstream-certificate-key", type=PEM, help="PEM of its key.")
@click.option(
    "--task",
    type=click.Choice(["chat", "completion", "embedding", "rerank"]),
    help="What the endpoint does [chat].",
)
@click.option("--place", type=click.Choice(["local", "site", "cloud"]), help="Where data goes.")
@click.option("--fallback", "fallbacks", multiple=True, shell_complete=complete("deployment"),
              help="A deployment asked when this one fails; may be repeated.")  # fmt: skip
@click.option("--context", type=int, help="Context in tokens.")
@click.option("--slots", type=int, help="Requests answered at once by a replica.")
@click.option("--threads", type=int, help="Processor threads a replica.")
@click.option("--idle-unload", type=float, help="Unload after so many idle seconds.")
@click.option("--price-in", type=float, help="Money for a million tokens read.")
@click.option("--price-out", type=float, help="Money for a million tokens written.")
@click.option("--cache", metavar="SECONDS", type=float, help="Keep repeatable answers so long.")
@click.option("--hedge-ms", type=int, help="Ask a second replica after so long without a token.")
@click.option(
    "--continues",
    type=click.Choice(["prefill", "final_message"]),
    help="How endpoints go on with an answer that another began.",
)
@click.option("--scale", type=float, help="By how much an adapter counts [1].")
@click.option(
    "--build", metavar="ENGINE", help="wheel, auto, or an engine of freehold engine list."
)
@click.option("--draft", metavar="NAME", help="A smaller model that guesses ahead; none for none.")
@click.option("--cache-type", type=click.Choice(["f16", "q8_0", "q4_0"]),
              help="Type of the key-value cache.")  # fmt: skip
@click.option("--tune", is_flag=True, help="Find how it runs best here, by measuring.")
@click.option("--wait", is_flag=True, help="Return once it answers.")
def deploy(
    options: Options,
    name: str | None,
    deployment: str | None,
    urls: tuple[str, ...],
    more: tuple[str, ...],
    cache: float | None,
    tune: bool,
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
    if body.get("draft") == "none":
        body["draft"] = ""
    if cache:
        body["cache"] = {"seconds": cache}
    if endpoints:
        body["replicas"] = len(endpoints)
    with connected(options, creates=bool(endpoints)) as client:
        if wait and not client.serving:
            raise Unavailable(
                "unavailable.freehold",
                f"cannot wait: nothing runs on {options.home}. Start it with freehold up, or leave "
                "out --wait",
            )
        result = client.put(f"/api/deployments/{part(chosen)}", body)
        if tune:
            say(tuned(chosen, run_tune(client, chosen, "balanced")))
            result = client.get(f"/api/deployments/{part(chosen)}")
        if wait:
            result = _await(client, chosen)
        state = result["state"] if client.serving else "to be run: freehold up starts it"
    if result["state"] in HOPELESS:
        raise _failure(chosen, result["reason"])
    emit(options, result, f"{chosen} is {state}")


@command()
@click.argument("deployment", shell_complete=complete("deployment"))
def undeploy(options: Options, deployment: str) -> None:
    """Remove a deployment; requests that run there are finished."""
    with connected(options) as client:
        result = client.delete(f"/api/deployments/{part(deployment)}")
    emit(options, result, f"{deployment} is gone")


def _await(client: Client, name: str) -> dict[str, Any]:
    with progress(name) as shown:
        while True:
            found: dict[str, Any] = client.get(f"/api/deployments/{part(name)}", wait="0.5")
            if found["state"] == "ready" or found["state"] in HOPELESS:
                return found
            if found["reason"]:
                shown.show(f"waiting: {found['reason']}", 0, 0)
            else:
                shown.percent("loading", found["progress"])


def _failure(name: str, reason: str | None) -> Unavailable:
    why = (reason or "it cannot run: see freehold status").removeprefix(f"{name}: ")
    return Unavailable("unavailable.deployment", f"{name}: {why}")
