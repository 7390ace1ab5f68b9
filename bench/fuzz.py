"""Requests nobody would send, made from our own OpenAPI document: ``python -m bench.fuzz``.

    python -m bench.fuzz [--examples N] [--seconds N] [--seed N]

Starts a Freehold on a home of its own with an endpoint that answers at once. Fails on an answer
outside the document, an answer of 500, one that does not come, and on a traceback in any log.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from tests.fake_engine import FakeEngine, fake_engine
from tests.house import House
from tests.make_gguf import gguf

CHECKS = "status_code_conformance,content_type_conformance,response_schema_conformance"
LEFT_OUT = {
    ("post", "/api/engines"): "runs a compiler for minutes, after a download",
    ("post", "/api/engines/pick"): "runs a program of this machine, given by its path",
}
"""What cannot be asked at random, and why."""
LAST = {("put", "/api/desired"), ("post", "/api/gateways/restart")}
"""What takes away what others are asked about, as every DELETE does: asked in a run of its own."""
KNOWN = {
    "name": ["fake"],
    "deployment": ["fake"],
    "model": ["tiny"],
    "version": ["1"],
    "alias": ["latest", "live"],
    "repository": ["tiny"],
    "subject": ["principal:admin"],
}
"""Names that exist: half of the requests are about them, else all would end at 404."""


def main() -> None:
    """Run until the examples or the seconds are used up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=900)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, fake_engine() as engine:
        house = House(Path(folder) / "home")
        try:
            furnish(house, engine)
            report = fuzz(house, given.examples, given.seconds, given.seed)
            print(report)
            problems = complaints(house)
        finally:
            house.close()
    if problems or "FAILURES" in report or "ERRORS" in report:
        sys.exit("\n".join(problems) or "see above")


def furnish(house: House, engine: FakeEngine) -> None:
    """Start a house with a model that nobody runs and an endpoint that answers at once."""
    weights = house.home.parent / "tiny.gguf"
    weights.write_bytes(gguf())
    house.cli("model", "import", str(weights), "--name", "tiny")
    house.start()
    house.cli("deploy", "--url", engine.url, "--as", "fake", "--wait")


def fuzz(house: House, examples: int, seconds: int, seed: int) -> str:
    """Send requests to a house; return what was found, as text."""
    document = house.call("GET", "/api/openapi.json").json
    acquaint(document)
    last = {
        (method, path)
        for path, item in document["paths"].items()
        for method in item
        if method == "delete" or (method, path) in LAST
    }
    reports = []
    for number, share in enumerate((0.8, 0.2)):
        some = only(document, last if number else None, {*LEFT_OUT, *last})
        reports.append(_run(house, some, examples, max(4, int(seconds * share)), seed))
    return "\n".join(reports)


def only(document: Any, these: set[tuple[str, str]] | None, others: Collection[Any]) -> Any:
    """Return a document with these operations only, or with all but the others."""
    paths = {
        path: {
            method: operation
            for method, operation in item.items()
            if ((method, path) in these if these is not None else (method, path) not in others)
        }
        for path, item in document["paths"].items()
    }
    return {**document, "paths": {path: item for path, item in paths.items() if item}}


def acquaint(document: Any) -> None:
    """Have a document propose names that exist, in paths and as models in bodies."""
    for item in document["paths"].values():
        for operation in item.values():
            for parameter in operation.get("parameters", ()):
                known = KNOWN.get(parameter["name"])
                if parameter["in"] == "path" and known:
                    parameter["schema"] = {"anyOf": [{"enum": known}, parameter["schema"]]}
    for name, schema in document["components"]["schemas"].items():
        model = schema.get("properties", {}).get("model")
        if name.endswith("Request") and model:
            schema["properties"]["model"] = {"anyOf": [{"enum": ["fake"]}, model]}


def _run(house: House, document: Any, examples: int, seconds: int, seed: int) -> str:
    path = house.home / "openapi.json"
    path.write_text(json.dumps(document))
    ran = subprocess.run(
        [
            Path(sys.executable).parent / "schemathesis", "run", path, "--url", house.url,
            "-H", f"Authorization: Bearer {house.key}", "--checks", CHECKS,
            "--max-examples", str(examples), "--max-time", str(seconds), "--seed", str(seed),
            "--phases", "examples,coverage,fuzzing", "--request-timeout", "20",
            "--generation-database", "none", "--no-color", "--warnings", "off",
            "--continue-on-failure",
        ],
        capture_output=True, text=True, check=False, cwd=house.home, timeout=seconds + 120,
    )  # fmt: skip
    return ran.stdout + ran.stderr


def complaints(house: House) -> list[str]:
    """Return what went wrong inside: answers of 500 and tracebacks."""
    found = [f"500: {r}" for r in house.audit(limit="1000") if r.get("status") == 500]
    for log in (*house.home.glob("logs/gateway*.log"), house.home.parent / "home.log"):
        if log.exists() and "Traceback" in (text := log.read_text()):
            found.append(f"{log.name}: {text[-3000:]}")
    return found


if __name__ == "__main__":
    main()
