"""Push and pull of one gigabyte through a registry: ours beside Debian's, by skopeo and by us.

    python -m bench.oci [--megabytes N] [--rounds N]

Needs skopeo and docker-registry. Rounds are interleaved; what counts is the ratio of the medians.
Ratios below 1 mean that ours is faster.
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from bench.stage import WORK, house
from freehold.builtin.source_oci import OCI
from freehold.settings import Sources
from tests.house import House
from tests.make_gguf import gguf
from tests.registries import clean_environment, digest, docker_registry, layer, manifest

WEIGHT = "application/vnd.cncf.model.weight.v1.raw"


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    print(json.dumps(oci(parser.parse_args()), indent=1))


def oci(given: argparse.Namespace) -> dict[str, Any]:
    """Return seconds and ratios of pushing and pulling, and what our processes grew by."""
    for program in ("skopeo", "docker-registry"):
        if shutil.which(program) is None:
            return {"skipped": f"{program} is not installed"}
    rounds, megabytes = given.rounds, getattr(given, "megabytes", 1024)
    WORK.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK) as folder, house() as own:
        place = Path(folder)
        (place / "registry").mkdir()
        with docker_registry(place / "registry") as peer:
            return _rounds(own, peer, place, megabytes, rounds)


def _rounds(own: House, peer: str, place: Path, megabytes: int, rounds: int) -> dict[str, Any]:
    host = own.url.removeprefix("http://")
    times: dict[str, list[float]] = {}
    gateways = [psutil.Process(pid) for pid in own.gateways()]
    before, peak = sum(each.memory_info().rss for each in gateways), 0
    for number in range(rounds):
        source = _artifact(place / f"in-{number}", megabytes)
        name = f"bench{number}"

        def timed(what: str, act: Callable[[], object]) -> None:
            begun = time.perf_counter()
            act()
            times.setdefault(what, []).append(time.perf_counter() - begun)

        def copy(*arguments: str) -> None:
            subprocess.run(
                ["skopeo", "copy", "--quiet", *arguments], check=True, env=clean_environment()
            )

        to_us = (f"--dest-creds=me:{own.key}", "--dest-tls-verify=false", f"dir:{source}",
                 f"docker://{host}/{name}:v1")  # fmt: skip
        to_peer = ("--dest-tls-verify=false", f"dir:{source}", f"docker://{peer}/{name}:v1")
        from_us = (f"--src-creds=me:{own.key}", "--src-tls-verify=false",
                   f"docker://{host}/{name}:v1", f"dir:{place / 'out'}")  # fmt: skip
        from_peer = ("--src-tls-verify=false", f"docker://{peer}/{name}:v1",
                     f"dir:{place / 'out'}")  # fmt: skip
        pairs = [("push to ours", to_us, "push to docker-registry", to_peer),
                 ("pull from ours", from_us, "pull from docker-registry", from_peer)]  # fmt: skip
        for ours, first, theirs, second in pairs:
            both = [(ours, first), (theirs, second)]
            for what, arguments in both if number % 2 else both[::-1]:
                shutil.rmtree(place / "out", ignore_errors=True)
                timed(what, partial(copy, *arguments))
            peak = max(peak, sum(each.memory_info().rss for each in gateways))
        shutil.rmtree(place / "out", ignore_errors=True)
        both_clients = [
            ("our client pulls from docker-registry", partial(_pull, peer, name, place / "out")),
            ("skopeo pulls from docker-registry", partial(copy, *from_peer)),
        ]
        for what, act in both_clients if number % 2 else both_clients[::-1]:
            shutil.rmtree(place / "out", ignore_errors=True)
            timed(what, act)
        shutil.rmtree(source)
        own.call("DELETE", f"/api/models/{name}")
    found = {what: round(statistics.median(each), 3) for what, each in times.items()}
    return {
        "megabytes": megabytes,
        "rounds": rounds,
        "push_ratio": _ratio(times, "push to ours", "push to docker-registry"),
        "pull_ratio": _ratio(times, "pull from ours", "pull from docker-registry"),
        "client_ratio": _ratio(
            times,
            "our client pulls from docker-registry",
            "skopeo pulls from docker-registry",
        ),
        "seconds": found,
        "gateway_grew_mb": round((peak - before) / 1e6, 1),
    }


def _ratio(times: dict[str, list[float]], ours: str, theirs: str) -> float:
    """Return the median of the rounds' own ratios: other work on the machine hits both alike."""
    return round(
        statistics.median(a / b for a, b in zip(times[ours], times[theirs], strict=True)), 3
    )


def _artifact(folder: Path, megabytes: int) -> Path:
    """Write an artifact as skopeo's folder form: one GGUF file of random weights."""
    folder.mkdir()
    count = megabytes * 1024 * 1024 // 4
    head = gguf({"general.architecture": "llama"}, [("weight", [count], 0, 0)], b"")
    body = os.urandom(1 << 20)
    with (folder / "model").open("wb") as file:
        file.write(head)
        for number in range(megabytes):
            file.write(number.to_bytes(8, "little") + body[8:])
    with (folder / "model").open("rb") as file:
        hexadecimal = hashlib.file_digest(file, "sha256").hexdigest()
    size = (folder / "model").stat().st_size
    (folder / "model").rename(folder / hexadecimal)
    weights = {"mediaType": WEIGHT, "digest": f"sha256:{hexadecimal}", "size": size,
               "annotations": {"org.cncf.model.filepath": "model.gguf"}}  # fmt: skip
    config = b"{}"
    (folder / digest(config)[7:]).write_bytes(config)
    (folder / "manifest.json").write_bytes(manifest(weights))
    (folder / "version").write_text("Directory Transport Version: 1.1\n")
    assert layer(config)["size"] == 2
    return folder


def _pull(host: str, name: str, out: Path) -> None:
    out.mkdir()
    source = OCI(Sources())
    origin = source.claims(f"oci://{host}/{name}:v1")
    assert origin is not None
    source.fetch(origin, out, lambda *_: None)


if __name__ == "__main__":
    sys.exit(main())
