"""Requests nobody would send, made from our own OpenAPI document: ``python -m bench.fuzz``.

    python -m bench.fuzz [--examples N] [--seconds N] [--seed N]

Starts a Freehold on a home of its own with an endpoint that answers at once. Fails on an answer
outside the document, an answer of 500, one that does not come, and on a traceback in any log.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fake_engine import fake_engine
from tests.house import House

CHECKS = "status_code_conformance,content_type_conformance,response_schema_conformance"
LEFT_OUT = ("/api/desired", "/api/gateways/restart", "/api/models")
"""What would end the run, or fetch something from the network."""


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
            house.start()
            house.cli("deploy", "--url", engine.url, "--as", "fake", "--wait")
            report = fuzz(house, given.examples, given.seconds, given.seed)
            print(report)
            problems = complaints(house)
        finally:
            house.close()
    if problems or "FAILURES" in report or "ERRORS" in report:
        sys.exit("\n".join(problems) or "see above")


def fuzz(house: House, examples: int, seconds: int, seed: int) -> str:
    """Send requests to a house; return what was found, as text."""
    document = house.home / "openapi.json"
    document.write_bytes(house.call("GET", "/api/openapi.json").body)
    left_out = [part for path in LEFT_OUT for part in ("--exclude-path", path)]
    ran = subprocess.run(
        [
            Path(sys.executable).parent / "schemathesis", "run", document, "--url", house.url,
            "-H", f"Authorization: Bearer {house.key}", "--checks", CHECKS, *left_out,
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
