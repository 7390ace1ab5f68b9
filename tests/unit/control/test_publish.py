"""Snapshots: revisions that only grow, full disks, and deployments that fail alone."""

import os
from pathlib import Path

import pytest
from pyreqwest.client import ClientBuilder

from freehold.control.publish import Publisher, routes
from freehold.control.upstream_keys import UpstreamKeys
from freehold.errors import FreeholdError, Missing
from freehold.models.deploy import Plan
from freehold.models.deployment import Deployment
from freehold.runtime.engine import Launch
from freehold.runtime.pool import Pool
from freehold.runtime.replica import Replica
from freehold.secret import resolve_secret
from freehold.settings import Runtime
from freehold.store.snapshot import KeyGrant, read_snapshot

KEYS = {"h": KeyGrant(id="k", principal="p", role="developer")}


async def test_a_lost_snapshot_makes_no_old_gateway_a_confirming_one(tmp_path: Path) -> None:
    old = Publisher(tmp_path / "snapshot.json").publish({}, {}, "u", "s", ready=True)
    (tmp_path / "snapshot.json").unlink()
    publisher = Publisher(tmp_path / "snapshot.json")
    await publisher.answer("gateway-0", old, {}, {}, 0)
    revision = publisher.publish(KEYS, {}, "u", "s", ready=True)
    assert revision > old
    assert await publisher.in_force(revision, ["gateway-0"], 0) == ["gateway-0"]


async def test_on_a_full_disk_gateways_are_told_and_the_file_follows(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path / "run" / "snapshot.json")
    revision = publisher.publish(KEYS, {}, "u", "s", ready=True)
    assert (await publisher.answer("g", 0, {}, {}, 1)).keys == KEYS  # type: ignore[union-attr]
    with pytest.raises(OSError, match="No such file"):
        publisher.save()
    (tmp_path / "run").mkdir()
    publisher.save()
    assert read_snapshot(tmp_path / "run" / "snapshot.json").revision == revision


async def test_a_deployment_that_cannot_be_shown_fails_alone(tmp_path: Path) -> None:
    client = ClientBuilder().build()
    pool = Pool({}, Path, tmp_path, tmp_path, Runtime(), client, {}, lambda: 0.0)
    for name, engine in (("denied", "denied"), ("breaks", "breaks"), ("well", "well")):
        launch = Launch(deployment=name, engine=engine, model=name, url="http://x/v1")
        pool.replicas[name] = Replica(id=name, launch=launch, state="ready", url=launch.url)

    class Engine:
        streams_only = False
        continues = None

        def command(self, *_: object) -> None: ...

        def endpoint(self, url: str) -> str:
            return url

    class Breaks(Engine):
        def endpoint(self, url: str) -> str:
            raise ZeroDivisionError("own fault")

    names = ("denied", "breaks", "well")
    plans = [Plan(deployment=Deployment(name=name, urls=("http://x/v1",))) for name in names]
    engines = {"breaks": Breaks(), "well": Engine()}
    found = routes(plans, pool, engines, {}, resolve_secret)
    assert (found["denied"].state, found["breaks"].state) == ("failed", "failed")
    assert "no engine denied" in (found["denied"].reason or "")
    assert "own fault" in (found["breaks"].reason or "")
    assert len(found["well"].targets) == 1
    await client.close()


@pytest.mark.parametrize(
    "reference",
    [
        "file:~nosuchuser/x", "file:a\0b", "file:/dev/zero", "file:/", "file:/nowhere",
        "file:FOLDER/pipe", "file:FOLDER/big", "file:FOLDER/empty", "file:FOLDER/lines",
        "env:NOT_SET_ANYWHERE",
    ],
)  # fmt: skip
def test_a_key_that_cannot_be_had_is_an_answer(tmp_path: Path, reference: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "big").write_bytes(b"x" * 70_000)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "lines").write_bytes(b"one\ntwo\n")
    reference = reference.replace("FOLDER", str(tmp_path))
    for _ in range(2):
        with pytest.raises(FreeholdError):
            UpstreamKeys().resolve(reference)
    if not reference.endswith(("empty", "lines")):
        with pytest.raises(Missing):
            resolve_secret(reference)


def test_a_key_is_read_again_only_when_its_file_changed(tmp_path: Path) -> None:
    path, keys = tmp_path / "key", UpstreamKeys()
    path.write_text("one\n")
    os.utime(path, ns=(1, 1))
    assert keys.resolve(f"file:{path}") == "one"
    path.write_text("two\n")
    os.utime(path, ns=(1, 1))
    assert keys.resolve(f"file:{path}") == "one"  # not read
    os.utime(path, ns=(2, 2))
    assert keys.resolve(f"file:{path}") == "two"
