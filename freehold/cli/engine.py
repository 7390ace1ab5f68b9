"""``freehold engine ...``: list, build, pick, remove; tune a deployment."""

from pathlib import Path
from typing import Any

import click

from freehold.cli.client import Client, connected, part
from freehold.cli.command import Options, command
from freehold.cli.names import complete
from freehold.cli.output import emit, follow, table
from freehold.cli.words import size

HEAD = ("ENGINE", "BACKEND", "MODEL", "READING", "WRITING", "EIGHT", "BESIDE WHEEL", "CHOSEN FOR")
KNOBS = ("threads", "flash", "batch", "slots", "cache_type", "draft", "context")
_model = click.option("--model", "models", multiple=True, metavar="NAME",
                      help="A model to try it on [the smallest of each architecture].")  # fmt: skip

_rounds = click.option("--rounds", type=int, default=3, show_default=True,
                       help="How often speeds are measured; 0 only compares.")  # fmt: skip


@click.group()
def engine() -> None:
    """Engines: build one for this machine, choose the fastest."""


@command(engine, "list")
def list_(options: Options) -> None:
    """List engines, how fast each was measured, and for what it is chosen."""
    with connected(options) as client:
        found = client.get("/api/engines")
    emit(options, found, _table(found))


@command(engine)
@click.option("--source", metavar="FILE", help="A source distribution [the pinned one].")
@click.option("--sha256", help="Its digest: building runs what is in it.")
@click.option("--backend", default="auto", show_default=True,
              help="cpu, vulkan, cuda, rocm, metal, or what can be built here.")  # fmt: skip
@click.option("--jobs", type=int, help="Compilers at once [all cores].")
@_model
@_rounds
def build(
    options: Options,
    source: str | None,
    sha256: str | None,
    backend: str,
    jobs: int | None,
    models: tuple[str, ...],
    rounds: int,
) -> None:
    """Compile llama.cpp for this machine, try it beside the wheel, and use it where it is faster.

    Takes minutes to an hour. What was stopped or killed goes on when the command is run again.
    """
    body = {
        "source": str(Path(source).expanduser().absolute()) if source else None,
        "sha256": sha256.lower().removeprefix("sha256:") if sha256 else None,
        "backend": backend, "jobs": jobs, "models": models, "rounds": rounds,
    }  # fmt: skip
    with connected(options) as client:
        result = follow(client, client.post("/api/engines", body), "engine")
        text = _table(client.get("/api/engines"))
    advice = f"\n{result['advice']}" if result["advice"] else ""
    emit(options, result, f"built {result['id']}{advice}\n{text}")


@command(engine)
@click.option("--binary", metavar="FILE", help="A llama-server of somebody else to take in.")
@_model
@_rounds
def pick(options: Options, binary: str | None, models: tuple[str, ...], rounds: int) -> None:
    """Measure every engine there is beside the wheel; the fastest that answers alike is used."""
    body = {
        "binary": str(Path(binary).expanduser().absolute()) if binary else None,
        "models": models,
        "rounds": rounds,
    }
    with connected(options) as client:
        result = follow(client, client.post("/api/engines/pick", body), "engines")
        text = _table(client.get("/api/engines"))
    best = ", ".join(f"{name}: {chosen}" for name, chosen in result["best"].items())
    emit(options, result, f"{text}\n{best}")


@command(engine)
@click.argument("name")
def remove(options: Options, name: str) -> None:
    """Remove an engine; deployments that run on it change over."""
    with connected(options) as client:
        result = client.delete(f"/api/engines/{part(name)}")
    emit(options, result, f"removed {name}, {size(result['freed_bytes'])} freed")


@command(engine)
@click.argument("deployment", shell_complete=complete("deployment"))
@click.option("--goal", type=click.Choice(["balanced", "reading", "writing", "clients"]),
              default="balanced", show_default=True, help="What it shall be fast at.")  # fmt: skip
@click.option("--only", multiple=True, type=click.Choice(KNOBS), metavar="KNOB",
              help=f"Turn no other: {', '.join(KNOBS)}; may be repeated.")  # fmt: skip
def tune(options: Options, deployment: str, goal: str, only: tuple[str, ...]) -> None:
    """Find how a deployment runs best on this machine, by measuring, and store that with it.

    Threads, flash attention, batch, slots, type of the key-value cache, draft model, context.
    """
    with connected(options) as client:
        result = run_tune(client, deployment, goal, only)
    emit(options, result, tuned(deployment, result))


def run_tune(
    client: Client, deployment: str, goal: str, only: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Tune a deployment and return what was found."""
    body = {"goal": goal, "only": only}
    job = client.post(f"/api/deployments/{part(deployment)}/tune", body)
    return follow(client, job, f"tuning {deployment}")


def tuned(deployment: str, result: dict[str, Any]) -> str:
    """Return what tuning found, as people read it."""
    rows = [
        (
            _choice(trial["choice"]),
            trial["ratio"] or "does not work",
            "yes" if trial["kept"] else "",
        )
        for trial in result["trials"]
    ]
    shown = table(("TRIED", "TIMES AS FAST", "BETTER"), rows, "nothing to try")
    return (
        f"{shown}\n{deployment} is {result['gain']:.2f} times as fast: {_choice(result['choice'])}"
    )


def _choice(choice: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in choice.items() if value is not None)


def _table(engines: list[dict[str, Any]]) -> str:
    rows = []
    for each in engines:
        for match in each["matches"] or [None]:
            # Beside a measurement, only what follows from it.
            own = match["match"]["architecture"] if match else None
            chosen = ", ".join(name for name in each["chosen_for"] if own in (None, name))
            rows.append((each["id"], each["backend"], *_numbers(match), chosen))
    failing = [
        f"{each['id']} is failing: {each['failing']['reason']}; freehold engine pick tries it again"
        for each in engines
        if each["failing"]
    ]
    return "\n".join([table(HEAD, rows, ""), *failing])


def _numbers(match: dict[str, Any] | None) -> tuple[object, ...]:
    if match is None:
        return ("-",) * 5
    speed = match["match"]["build"]
    rates = tuple(f"{speed[name]:.0f}/s" for name in ("reading", "writing", "eight"))
    return (match["match"]["model"], *rates, f"{match['gain']:.2f} x")
