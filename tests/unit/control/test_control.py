"""Documents, jobs, and gateways that must confirm."""

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from freehold.cli.output import how_far
from freehold.control.deployments import (
    LONGEST,
    Deployments,
    Document,
    read_document,
    write_document,
)
from freehold.control.home import Home
from freehold.control.jobs import WAITING, Jobs
from freehold.control.publish import Publisher
from freehold.errors import Conflict, Invalid, Missing, NoCapacity
from freehold.models.deployment import Deployment, place_of
from freehold.models.registry import Registry
from freehold.runtime.standing import Standing
from freehold.settings import Runtime
from freehold.store.blobs import Blobs
from freehold.store.database import Database
from freehold.store.desired import put_deployment
from freehold.store.snapshot import KeyGrant, Snapshot, read_snapshot


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


@pytest.mark.parametrize(
    "text",
    [
        "#" * (LONGEST + 1),
        "".join(f"[[deployments]]\nname='a{n}'\nmodel='m'\n" for n in range(1001)),
        "[[deployments]]\nname='a'\nmodel='m'\n" * 2,
        f"[[models]]\nname='A b'\nsource='s'\nsha256='{'a' * 64}'",
        "[[models]]\nname='a'\nsource='s'\nsha256='abc'",
        f"[[aliases]]\nmodel='a'\nalias='7'\nsha256='{'a' * 64}'",
        f"[[aliases]]\nmodel='a'\nalias='../x'\nsha256='{'a' * 64}'",
        f"[[aliases]]\nmodel='a'\nalias='x'\nsha256='{'a' * 64}'\n" * 2,
        "[[deployments]]\nname='a'\nurls=[" + "'http://127.0.0.1/v1'," * 65 + "]",
        "[[deployments]]\nname='a'\nurls=['https://api.example.com/v1']",
        "[[deployments]]\nname='a'\nurls=['http://127.0.0.1/v1', 'http://10.0.0.1/v1']",
    ],
)
def test_a_document_is_refused_as_a_whole(text: str) -> None:
    with pytest.raises(Invalid):
        read_document(text)


def test_where_data_goes_is_never_guessed() -> None:
    for url in ("http://localhost:1/v1", "http://127.9.9.9/v1", "http://[::1]:1/v1"):
        found = read_document(f"[[deployments]]\nname='a'\nurls=['{url}']").deployments[0]
        assert place_of(found) == "local"
    assert place_of(Deployment(name="a", model="m")) == "local"
    # Stored before it had to be said.
    assert place_of(Deployment(name="a", urls=("https://127.0.0.1.example.com/v1",))) == "cloud"


def test_a_document_is_applied_whole_or_not_at_all(tmp_path: Path) -> None:
    database = Database(tmp_path / "f.db")
    deployments = Deployments(database, Registry(database, Blobs(tmp_path / "b")), Runtime())
    deployments.put(Deployment(name="before", model="m"), 1.0, "me")

    def also(_connection: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        deployments.apply(Document(deployments=(Deployment(name="a", model="m"),)), 2.0, "me", also)
    assert [each.name for each in deployments.all()] == ["before"]
    database.close()


def test_what_is_stored_and_not_understood_is_a_reason(tmp_path: Path) -> None:
    database = Database(tmp_path / "f.db")
    deployments = Deployments(database, Registry(database, Blobs(tmp_path / "b")), Runtime())
    with database.transaction() as connection:
        put_deployment(connection, "old", '{"name": "old", "model": "m", "slots": -1}', 1.0, "me")
    assert "deploy it again" in (deployments.plans()[0].reason or "")
    assert deployments.updated() == {"old": 1.0}
    deployments.put(Deployment(name="old", urls=("http://127.0.0.1/v1",)), 2.0, "me")
    assert deployments.plans()[0].reason is None
    assert deployments.updated() == {"old": 2.0}
    database.close()


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


async def test_another_pin_is_other_work() -> None:
    jobs, gate = Jobs(), threading.Event()

    def work(progress: object) -> dict[str, object]:
        gate.wait(10)
        return {}

    asked = [jobs.start("import", "s", work, same=pin) for pin in (None, "a", "b", "a")]
    assert len({job.id for job in asked}) == 3
    assert asked[1] is asked[3]
    gate.set()
    await jobs.stop()


async def test_jobs_keep_no_other_thread_waiting_and_are_not_without_number() -> None:
    jobs, gate = Jobs(at_once=2), threading.Event()
    begun: list[int] = []

    def work(progress: object) -> dict[str, object]:
        begun.append(1)
        gate.wait(10)
        return {}

    last = [jobs.start("verify", str(number), work) for number in range(WAITING)][-1]
    assert await asyncio.wait_for(asyncio.to_thread(lambda: 7), 5) == 7
    assert len(begun) == 2
    with pytest.raises(NoCapacity):
        jobs.start("verify", "one more", work)
    assert jobs.start("verify", str(WAITING - 1), work) is last
    gate.set()
    await jobs.wait(last.id, 10)
    assert len(begun) == WAITING
    await jobs.stop()


async def test_a_job_that_fails_says_why() -> None:
    jobs = Jobs()

    def work(progress: object) -> dict[str, object]:
        raise Missing("missing.x", "there is none")

    job = await jobs.wait(jobs.start("k", "s", work).id, 10)
    assert (job.state, job.error and job.error.message) == ("failed", "there is none")


async def test_a_job_is_cancelled_at_its_next_report_and_only_once(tmp_path: Path) -> None:
    jobs = Jobs()
    begun = threading.Event()

    def work(progress: Callable[[str, int, int], None]) -> dict[str, object]:
        for _ in range(1000):
            progress("working", 0, 0)
            begun.set()
            time.sleep(0.01)
        return {}

    job = jobs.start("import", "s", work)
    await asyncio.to_thread(begun.wait, 10)
    jobs.cancel(job.id, "ann")
    over = await jobs.wait(job.id, 10)
    assert over.error is not None
    assert (over.state, over.error.code) == ("failed", "unavailable.cancelled")
    assert over.error.message == "import s was cancelled by ann"
    with pytest.raises(Conflict, match="over already"):
        jobs.cancel(job.id, "ann")
    with pytest.raises(Missing):
        jobs.cancel("none", "ann")
    # The same work can be asked for again, and is not cancelled with the first.
    begun.clear()
    again = jobs.start("import", "s", work)
    await asyncio.to_thread(begun.wait, 10)
    assert (again is job, again.state) == (False, "running")
    await jobs.stop()


async def test_only_stages_that_move_bytes_tell_bytes() -> None:
    jobs, gates = Jobs(), [threading.Event() for _ in range(2)]
    said = threading.Event()

    def work(progress: Callable[[str, int, int], None]) -> dict[str, object]:
        for stage, gate in zip(("fetch", "reference"), gates, strict=True):
            progress(stage, 5, 10)
            said.set()
            gate.wait(10)
        return {}

    job = jobs.start("import", "s", work)
    for gate, unit in zip(gates, ("bytes", "share"), strict=True):
        await asyncio.to_thread(said.wait, 10)
        assert (job.unit, how_far(msgspec.to_builtins(job))) == (
            unit, {"bytes": " 5 B of 10 B", "share": " 50%"}[unit],
        )  # fmt: skip
        said.clear()
        gate.set()
    await jobs.stop()


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


async def test_gateways_are_heard_at_once_when_somebody_asks_how_they_stand(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path / "snapshot.json")
    revision = publisher.publish({}, {}, "u", "s", ready=True)
    answers: list[Snapshot | None] = []

    async def gateway() -> None:
        for tasks in (1, 2):
            door = Standing(tasks=tasks)
            answers.append(await publisher.answer("a", revision, {}, {}, 30, door))

    asking = asyncio.create_task(gateway())
    await asyncio.sleep(0)
    await asyncio.wait_for(publisher.hear(["a"], 5), 2)
    assert publisher.sightings["a"].door.tasks == 2
    assert answers == [None]  # there was nothing new to tell
    begun = asyncio.get_running_loop().time()
    await publisher.hear(["a", "away"], 0.1)  # who is away is waited for no longer than that
    assert asyncio.get_running_loop().time() - begun < 2
    await asking
    assert answers == [None, None]


def test_one_control_a_home(tmp_path: Path) -> None:
    home = Home(tmp_path / "h")
    assert not Home.is_locked(home.root)
    home.lock()
    assert Home.is_locked(home.root)
    assert home.holder()
    with pytest.raises(Conflict, match="already runs"):
        Home(tmp_path / "h").lock()
