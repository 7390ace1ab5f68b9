"""Stored responses: found by their owner only, bounded in age and size."""

import os
from pathlib import Path
from typing import Any

import pytest

from freehold.errors import Broken, Invalid, Missing, Unavailable
from freehold.settings import Responses
from freehold.store import responses
from freehold.store.responses import Shelf, Stored


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def shelf(path: Path, clock: Clock, **settings: Any) -> Shelf:
    return Shelf(path / "responses", Responses(**settings), clock)


def stored(number: int, previous: int | None = None, text: str = "x") -> Stored:
    return Stored(
        response={"id": name(number), "output": [text]},
        input=[{"id": "a"}],
        previous=None if previous is None else name(previous),
    )


def name(number: int) -> str:
    return f"resp_{number:08x}"


def keep(made: Shelf, clock: Clock, item: Stored, owner: str = "ann") -> Path:
    made.keep(owner, item)
    path = next(made._folder.glob(f"*/{item.response['id']}.json"))
    os.utime(path, (clock.now, clock.now))
    return path


def test_only_its_owner_finds_it_and_only_the_owner_of_the_files_reads_them(
    tmp_path: Path, clock: Clock
) -> None:
    made = shelf(tmp_path, clock)
    path = keep(made, clock, stored(1))
    assert made.load("ann", name(1)) == stored(1)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.parent.parent.stat().st_mode & 0o777 == 0o700
    for act in (made.load, made.remove, made.chain):
        with pytest.raises(Missing):
            act("bob", name(1))
    made.remove("ann", name(1))
    with pytest.raises(Missing):
        made.load("ann", name(1))


@pytest.mark.parametrize(
    "wrong", ["", "x", "../resp_00000001", "resp_0000000g", "resp_" + "0" * 99]
)
def test_names_that_are_none_never_reach_the_disk(tmp_path: Path, clock: Clock, wrong: str) -> None:
    with pytest.raises(Missing):
        shelf(tmp_path, clock).load("ann", wrong)


def test_a_chain_comes_oldest_first_and_counts_as_used(tmp_path: Path, clock: Clock) -> None:
    made = shelf(tmp_path, clock, keep=100.0)
    for number in range(3):
        keep(made, clock, stored(number, number - 1 if number else None))
    clock.now += 90
    assert [link.response["id"] for link in made.chain("ann", name(2))] == [
        name(0), name(1), name(2),
    ]  # fmt: skip
    clock.now += 90
    assert len(made.chain("ann", name(2))) == 3
    made.remove("ann", name(1))
    with pytest.raises(Missing) as caught:
        made.chain("ann", name(2))
    assert caught.value.param == "previous_response_id"


def test_an_endless_chain_is_refused(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(responses, "LONGEST_CHAIN", 5)
    made = shelf(tmp_path, clock)
    keep(made, clock, stored(1, 2))
    keep(made, clock, stored(2, 1))
    with pytest.raises(Invalid, match="hang together"):
        made.chain("ann", name(1))


def test_what_is_too_old_is_gone_at_once_and_swept_later(tmp_path: Path, clock: Clock) -> None:
    made = shelf(tmp_path, clock, keep=100.0)
    path = keep(made, clock, stored(1))
    clock.now += 101
    with pytest.raises(Missing):
        made.load("ann", name(1))
    assert path.exists()
    made.sweep()
    assert not path.exists()


def test_over_its_bound_the_longest_unused_go_first(tmp_path: Path, clock: Clock) -> None:
    made = shelf(tmp_path, clock, max_bytes=4000)
    paths = []
    for number in range(20):
        paths.append(keep(made, clock, stored(number, text="y" * 400)))
        clock.now += 1
    total = sum(path.stat().st_size for path in paths if path.exists())
    assert total <= 4000 + 4000 // responses.SWEEP_SHARE + 500
    assert not paths[0].exists()
    assert paths[-1].exists()


def test_many_processes_may_sweep(tmp_path: Path, clock: Clock) -> None:
    one, two = shelf(tmp_path, clock, keep=1.0), shelf(tmp_path, clock, keep=1.0)
    keep(one, clock, stored(1))
    clock.now += 5
    one.sweep()
    two.sweep()


def test_a_disk_that_takes_nothing_and_a_damaged_file_say_so(tmp_path: Path, clock: Clock) -> None:
    made = shelf(tmp_path, clock)
    path = keep(made, clock, stored(1))
    path.write_bytes(b"{")
    with pytest.raises(Broken):
        made.load("ann", name(1))
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="store false"):
        Shelf(tmp_path / "file", Responses(), clock).keep("ann", stored(1))
