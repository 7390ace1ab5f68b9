"""What fits, what goes, what waits."""

from hypothesis import given
from hypothesis import strategies as st

from freehold.runtime.engine import Launch
from freehold.runtime.placement import place
from freehold.runtime.replica import Replica


def replica(name: str, size: int, state: str = "idle", used: float = 0) -> Replica:
    launch = Launch(deployment=name, engine="e", model="m", bytes=size)
    return Replica(id=name, launch=launch, state=state, used=used)  # type: ignore[arg-type]


def test_what_fits_loads_in_order() -> None:
    found = place(
        [replica("a", 4), replica("b", 4), replica("c", 4)], ["a", "b", "c"], [], {}, 9, 0
    )
    assert found.load == ("a", "b")
    assert set(found.waiting) == {"c"}


def test_a_later_small_one_does_not_starve_an_earlier_big_one() -> None:
    replicas = [replica("busy", 6, "ready"), replica("big", 8), replica("small", 2)]
    found = place(replicas, ["big", "small"], [], {"busy": 1}, 10, 0)
    assert found.load == ()


def test_what_never_fits_says_so() -> None:
    found = place([replica("a", 100)], ["a"], ["a"], {}, 50, 0)
    assert "raise runtime.memory" in found.waiting["a"]


def test_the_urgent_evict_the_longest_unused_that_run_nothing() -> None:
    replicas = [
        replica("old", 4, "ready", 1), replica("older", 4, "ready", 0),
        replica("busy", 4, "ready", 0), replica("new", 4),
    ]  # fmt: skip
    found = place(replicas, ["new"], ["new"], {"busy": 1}, 12, 0)
    assert (found.load, found.unload) == ((), ("older",))
    assert place(replicas, ["new"], [], {"busy": 1}, 12, 0).unload == ()


def test_what_is_leaving_already_is_counted_on() -> None:
    replicas = [replica("going", 4, "draining"), replica("idle", 4, "ready"), replica("new", 4)]
    assert place(replicas, ["new"], ["new"], {}, 8, 0).unload == ()


def test_an_endpoint_needs_no_room() -> None:
    replicas = [
        replica("busy", 6, "ready"), replica("idle", 1, "ready"),
        replica("big", 8), replica("remote", 0),
    ]  # fmt: skip
    found = place(replicas, ["big", "remote"], ["remote"], {"busy": 1}, 10, 0)
    assert (found.load, found.unload) == (("remote",), ())
    assert place(replicas, ["remote"], ["remote"], {}, 5, 0).load == ("remote",)


SIZES = st.integers(0, 10)
STATES = st.sampled_from(["idle", "ready", "loading", "draining", "failed"])


@given(st.lists(st.tuples(SIZES, STATES, st.integers(0, 1)), max_size=8), st.integers(0, 30))
def test_room_is_never_overrun(items: list[tuple[int, str, int]], room: int) -> None:
    replicas = [replica(str(n), size, state, n) for n, (size, state, _) in enumerate(items)]
    busy = {str(n): count for n, (_, _, count) in enumerate(items)}
    wanted = [each.id for each in replicas if each.state in ("idle", "failed")]
    found = place(replicas, wanted, wanted, busy, room, 0)
    by = {each.id: each for each in replicas}
    held = sum(r.launch.bytes for r in replicas if r.state in ("ready", "loading", "draining"))
    loading = sum(by[name].launch.bytes for name in found.load)
    assert loading == 0 or held + loading <= room  # endpoints take none
    assert not set(found.load) & set(found.waiting)
    assert all(by[name].state == "ready" and not busy[name] for name in found.unload)
    assert set(found.load) | set(found.waiting) == set(wanted)
