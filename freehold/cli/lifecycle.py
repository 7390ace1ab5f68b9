"""``freehold up, down, status``: the life of a Freehold."""

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import click
import msgspec

from freehold.cli.client import connected
from freehold.cli.command import Options, command
from freehold.cli.output import emit, how_far, say, table
from freehold.cli.words import counted, size
from freehold.control.gateways import stop_leftovers
from freehold.control.home import Home
from freehold.settings import Server, Settings, read_settings

STOP_PATIENCE = 60.0


@command()
@click.option("--host", help="Address to listen on [127.0.0.1].")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on [8400].")
@click.option("--workers", type=click.IntRange(1, 256), help="Gateway processes [by cores].")
@click.option("--no-starter", is_flag=True, help="Do not fetch and run the starter model.")
def up(
    options: Options, host: str | None, port: int | None, workers: int | None, no_starter: bool
) -> None:
    """Start, and serve until Ctrl-C.

    The first start writes an administrator's key to HOME/admin.key and brings the starter model
    in. Ready when GET /readyz is 200.
    """
    import uvloop

    from freehold.app.control import run
    from freehold.cli.welcome import Welcome

    settings = _with(read_settings(options.home), host=host, port=port, workers=workers)
    welcome = Welcome(starter=not no_starter, as_json=options.as_json)
    uvloop.run(run(Home(options.home), settings, welcome))
    say("stopped")


@command()
def down(options: Options) -> None:
    """Stop the Freehold of a home, and whatever a killed one left running."""
    holder = None
    if options.home.is_dir():
        home = Home(options.home)
        holder = home.holder()
        if holder is not None:
            os.kill(holder, signal.SIGTERM)
            deadline = time.monotonic() + STOP_PATIENCE
            while home.holder() == holder and time.monotonic() < deadline:
                time.sleep(0.05)
    left = stop_leftovers(options.home, read_settings(options.home).server.shutdown_grace)
    stopped = holder is not None or left > 0
    text = "stopped" if stopped else f"nothing runs on {options.home}"
    emit(options, {"stopped": stopped, "control": holder, "leftovers": left}, text)


@command()
def status(options: Options) -> None:
    """Show deployments, replicas, memory and load."""
    with connected(options) as client:
        found = client.get("/api/status")
    emit(options, found, "\n".join(_lines(found)))


def _lines(found: dict[str, Any]) -> Iterator[str]:
    memory, runs = found["memory"], bool(found["url"])
    if runs:
        yield f"Freehold {found['version']} serves {found['url']}"
        yield f"home {found['home']}, {'ready' if found['ready'] else 'not ready yet'}"
        yield (
            f"memory of engines {size(memory['resident'])}, planned {size(memory['planned'])} of "
            f"{size(memory['budget'])}"
        )
    else:
        yield f"Freehold {found['version']} is stopped: freehold up starts it"
        yield f"home {found['home']}"
    yield ""
    head = ("DEPLOYMENT", "STATE", "MODEL", "PLACE", "READY", "OF", "RUNNING", "MEMORY", "WHY")
    yield table(
        head, [_row(d) for d in found["deployments"]], "no deployments: freehold deploy NAME"
    )
    if found["gateways"] and runs:
        gateways = [(g["name"], g["pid"], g["inflight"], size(g["resident"]))
                for g in found["gateways"]]  # fmt: skip
        yield ""
        yield table(("GATEWAY", "PROCESS", "RUNNING", "MEMORY"), gateways, "")
    damaged = (found["registry"] or {}).get("damaged", [])
    if damaged:
        yield ""
        yield f"{counted(len(damaged), 'file')} DAMAGED on disk: freehold model storage"
    for job in found["jobs"]:
        yield f"job {job['id']} {job['kind']} {job['subject']}: {job['stage']}{how_far(job)}"


def _row(d: dict[str, Any]) -> tuple[object, ...]:
    replicas = d["replicas"]
    state = d["state"]
    if state == "loading" and d["progress"]:
        state += f" {d['progress']:.0%}"
    return (
        d["name"], state, _model(d), d["place"],
        len([r for r in replicas if r["state"] == "ready"]), d["desired"].get("replicas", 1),
        sum(r["inflight"] for r in replicas), size(sum(r["resident"] for r in replicas)),
        d["reason"] or silent(d),
    )  # fmt: skip


def silent(d: dict[str, Any]) -> str | None:
    """Return which replicas of a deployment do not answer, as gateways find it."""
    failing = [r["endpoint"] or r["id"] for r in d["replicas"] if r["failing"]]
    return f"does not answer: {', '.join(failing)}" if failing else None


def _model(d: dict[str, Any]) -> str | None:
    """Return the version that answers now and, where that is another, the one that comes."""
    if d["version"] is None:
        model: str | None = d["model"]
        return model
    serving = sorted({r["version"] for r in d["replicas"] if r["state"] == "ready"})
    now = ", ".join(str(version) for version in serving) or str(d["version"])
    coming = f", then {d['version']}" if serving and serving != [d["version"]] else ""
    return f"{d['model']}:{now}{coming}"


def _with(settings: Settings, **given: str | int | None) -> Settings:
    chosen = {name: value for name, value in given.items() if value is not None}
    server: Server = msgspec.structs.replace(settings.server, **chosen)
    return msgspec.structs.replace(settings, server=server)
