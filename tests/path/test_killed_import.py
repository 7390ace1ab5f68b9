"""Control is killed at any moment of an import: a version is whole, or is not there."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.house import House, eventually


@pytest.mark.parametrize("stage", ["store", "scan", "done"])
def test_a_killed_import_leaves_a_whole_version_or_none(
    stage: str, new_house: Callable[..., House], weights: Path
) -> None:
    house = new_house(empty=True).start()
    source = {"source": str(weights), "name": "smol"}
    job = house.call("POST", "/api/models", source).json

    def reached() -> bool:
        now = house.call("GET", f"/api/jobs/{job['id']}").json
        return bool(now["stage"] == stage or now["state"] != "running")

    eventually(reached, stage)
    time.sleep(0.02)
    house.kill_control()
    house.start()
    models = house.json("model", "list")
    if stage == "done":
        assert [each["versions"] for each in models] == [[1]]
    if models:
        house.cli("model", "verify", "smol:1")
    else:  # nothing of it lies there unseen
        assert not list(house.home.glob("blobs/sha256/*/*"))
    job = house.call("POST", "/api/models", source).json
    again = house.call("GET", f"/api/jobs/{job['id']}?wait=30").json
    assert (again["state"], again["result"]["version"]) == ("done", 1)
    assert again["result"]["new"] == (not models)
    assert [each["versions"] for each in house.json("model", "list")] == [[1]]
    assert len(list(house.home.glob("blobs/sha256/*/*"))) == 1
