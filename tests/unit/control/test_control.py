"""Documents, jobs, and gateways that must confirm."""

import asyncio
import threading
from pathlib import Path

import pytest

from freehold.control.deployments import Document, read_document, write_document
from freehold.control.home import Home
from freehold.control.jobs import Jobs
from freehold.control.publish import Publisher
from freehold.errors import Conflict, Invalid, Missing
from freehold.models.deploy import Deployment
from freehold.store.snapshot import KeyGrant, read_snapshot


def test_a_document_reads_as_it_was_written() -> None:
    document = Document(
        deployments=(
            Deployment(name="a", model="m:staging", replicas=2, fallbacks=("b",), idle_unload=3.5),
            Deployment(name="b", urls=("http://x/v1",), upstream_key="env:K", place="cloud"),
        )
    )
    assert read_document(write_document(document)) == document
    assert read_document("") == Document()


@pytest.mark.parametrize("text", ["a = ", "[deployments]", "[[deployment]]\nname = 'x'"])
def test_a_wrong_document(text: str) -> None:
    with pytest.raises(Invalid):
        read_document(text)


async def test_the_same_work_at_once_is_one_job() -> None:
    jobs, gate = Jobs(), threading.Event()

    def work(progress: object) -> dict[str, object]:
        gate.wait(10)
        return {"done": True}

    one, two = jobs.start("k", "s", work), jobs.start("k", "s", work)
    other = jobs.start("k", "t", work)
    assert one is two
    assert other is not one
    gate.set()
    assert (await jobs.wait(one.id, 10)).result == {"done": True}
    assert jobs.start("k", "s", work) is not one
    await jobs.stop()
    with pytest.raises(Missing):
        jobs.get("nothing")


async def test_a_job_that_fails_says_why() -> None:
    jobs = Jobs()

    def work(progress: object) -> dict[str, object]:
        raise Missing("missing.x", "there is none")

    job = await jobs.wait(jobs.start("k", "s", work).id, 10)
    assert (job.state, job.error and job.error.message) == ("failed", "there is none")


async def test_a_change_is_in_force_only_when_every_gateway_says_so(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path / "snapshot.json")
    first = publisher.publish({}, {}, "u", "s", ready=True)
    keys = {"h": KeyGrant(id="k", principal="p", role="developer")}
    second = publisher.publish(keys, {}, "u", "s", ready=True)
    assert publisher.publish(keys, {}, "u", "s", ready=True) == second == first + 1
    assert await publisher.in_force(second, ["a", "b"], 0.01) == ["a", "b"]
    answer = await publisher.answer("a", first, {}, {}, 1)
    assert answer is not None
    assert answer.revision == second
    assert await publisher.in_force(second, ["a"], 0.01) == ["a"]  # told, but not confirmed
    waiting = asyncio.create_task(publisher.in_force(second, ["a"], 5))
    await asyncio.sleep(0)
    assert await publisher.answer("a", second, {"r": 2}, {}, 0.01) is None
    assert await waiting == []
    assert publisher.load(["a"]).inflight == {"r": 2}
    assert publisher.load(["a", "b"]).settled is False
    assert read_snapshot(tmp_path / "snapshot.json").keys == keys


def test_one_control_a_home(tmp_path: Path) -> None:
    home = Home(tmp_path / "h")
    assert not Home.is_locked(home.root)
    home.lock()
    assert Home.is_locked(home.root)
    assert home.holder()
    with pytest.raises(Conflict, match="already runs"):
        Home(tmp_path / "h").lock()
