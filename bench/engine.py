"""A native build beside the wheel: reading, writing, eight clients, in turns.

    python -m bench.engine [--model FILE.gguf] [--rounds N] [--binary llama-server]

Builds one with ``freehold engine build`` unless a server is given; kept in ``bench/.work/engine``.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from bench.stage import WORK, catalog_model, starter
from freehold.builtin.engine_llamacpp import LlamaCpp
from freehold.models.engines.bench import running
from freehold.models.engines.match import same_tokens
from freehold.runtime.builds import Builds, Speed
from freehold.runtime.engine import Launch, Native
from freehold.store.blobs import measure
from tests.house import House

MODELS = ("", "qwen2.5-coder-0.5b-instruct", "qwen2.5-coder-1.5b-instruct")
NUMBERS = ("reading", "writing", "eight")


def main() -> None:
    """Run it alone and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="weights [the starter and two of the catalog]")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--binary", type=Path, help="a llama-server that is built already")
    print(json.dumps(engine(parser.parse_args()), indent=1))


def engine(given: argparse.Namespace) -> dict[str, Any]:
    """Return how many times as fast as the wheel the build is on each model."""
    WORK.mkdir(exist_ok=True)
    binary = getattr(given, "binary", None)
    native = _taken(binary.resolve()) if binary else _built()
    paths = [given.model] if given.model else [
        catalog_model(name) if name else starter() for name in MODELS
    ]  # fmt: skip
    return {_title(path): _beside(native, path.resolve(), given.rounds) for path in paths}


def _beside(native: Native, weights: Path, rounds: int) -> dict[str, Any]:
    engine, folder = LlamaCpp(), WORK / "engine-trials"
    ours, theirs = (_launch(each) for each in (native, None))
    with (
        running(engine, ours, weights, folder, lambda: None) as build,
        running(engine, theirs, weights, folder, lambda: None) as wheel,
    ):
        same = same_tokens(build, wheel)
        pairs: list[tuple[Speed, Speed]] = []
        for number in range(rounds):
            # The first of a pair is another one each time.
            order = (build, wheel) if number % 2 else (wheel, build)
            one, other = (each.speed(number) for each in order)
            pairs.append((one, other) if number % 2 else (other, one))
            print(f"round {number}: {pairs[-1]}", file=sys.stderr)
    found: dict[str, Any] = {
        f"times_the_wheel_{name}": round(
            statistics.median(getattr(a, name) / getattr(b, name) for a, b in pairs), 2
        )
        for name in NUMBERS
    }
    for index, title in enumerate(("build", "wheel")):
        found[f"tokens_a_second_{title}"] = [
            round(statistics.median(getattr(pair[index], name) for pair in pairs), 1)
            for name in NUMBERS
        ]
    return found | {
        "first_choices_that_agree": f"{same.agreed} of {same.places}",
        "furthest_probability": same.furthest,
    }


def _launch(native: Native | None) -> Launch:
    return Launch(
        deployment="engine-trial", engine="llamacpp", model="trial", weights="x", context=4096,
        slots=8, native=native,
    )  # fmt: skip


def _taken(binary: Path) -> Native:
    files = ((binary.name, measure(binary)[0]),)
    return Native(build="given", directory=str(binary.parent), files=files)


def _built() -> Native:
    house = House(WORK / "engine")
    builds = Builds(house.home / "engines")
    if not builds.all():
        house.json("model", "import", str(starter()), "--name", "starter")
        house.json("engine", "build", "--backend", "cpu")
    return builds.native(builds.all()[-1])


def _title(path: Path) -> str:
    return f"{round(path.stat().st_size / 1e6)} MB"


if __name__ == "__main__":
    main()
