"""The state machine, and that no order of events breaks it."""

from hypothesis import given
from hypothesis import strategies as st

from freehold.runtime.engine import Launch
from freehold.runtime.replica import (
    Drain,
    Drained,
    Event,
    Exited,
    Loaded,
    Replica,
    Spawned,
    Want,
    backoff,
    may_load,
    step,
)

LAUNCH = Launch(deployment="d", engine="e", model="m")
NEW = Replica(id="r", launch=LAUNCH)
EVENTS = st.sampled_from(
    [Want(), Spawned(1, 2.0, "s"), Loaded("http://x"), Exited("why"), Drain(), Drained()]
)


def walk(*events: Event, now: float = 0.0) -> tuple[Replica, list[str]]:
    replica, acts = NEW, []
    for event in events:
        replica, done = step(replica, event, now)
        acts += done
    return replica, acts


def test_the_good_life() -> None:
    replica, acts = walk(Want(), Spawned(1, 2.0, "s"), Loaded("http://x"))
    assert (replica.state, replica.url, replica.pid, acts) == ("ready", "http://x", 1, ["spawn"])
    replica, acts = walk(Want(), Spawned(1, 2.0, "s"), Loaded("http://x"), Drain(), Drained())
    assert (replica.state, replica.pid, acts) == ("stopped", None, ["spawn", "terminate"])


def test_failures_back_off_and_are_forgiven_after_a_steady_time() -> None:
    replica, _ = walk(Want(), Spawned(1, 2.0, "s"), Exited("died"))
    assert (replica.state, replica.failures, replica.reason) == ("failed", 1, "died")
    assert not may_load(replica, replica.retry_at - 0.01)
    assert may_load(replica, replica.retry_at)
    replica, _ = step(replica, Want(), 10)
    replica, _ = step(replica, Loaded("u"), 11)
    replica, _ = step(replica, Exited("again"), 12)
    assert replica.failures == 2
    replica, _ = step(replica, Want(), 20)
    replica, _ = step(replica, Loaded("u"), 21)
    replica, _ = step(replica, Exited("much later"), 500)
    assert replica.failures == 1


def test_starts_that_came_to_nothing_are_counted_until_one_does() -> None:
    start = (Want(), Spawned(1, "2", "s"))
    replica, _ = walk(*start, Exited("died"), *start, Exited("died"))
    assert replica.unstarted == 2
    # Weights that are damaged end it before there is a process: that says nothing of an engine.
    replica, _ = step(replica, Want(), 0)
    replica, _ = step(replica, Exited("damaged"), 0)
    assert (replica.failures, replica.unstarted) == (3, 2)
    # One that answered and died is no start that came to nothing.
    replica, _ = walk(*start, Exited("died"), *start, Loaded("u"), Exited("died"))
    assert (replica.failures, replica.unstarted) == (2, 0)


def test_backoff_grows_to_its_limit() -> None:
    waits = [backoff(failures) for failures in range(1, 12)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (0.5, 60.0)


@given(st.lists(st.tuples(EVENTS, st.floats(0, 100)), max_size=30))
def test_no_order_of_events_leaves_it_in_an_impossible_state(
    steps: list[tuple[Event, float]],
) -> None:
    replica, spawned, now = NEW, 0, 0.0
    for event, later in steps:
        now += later
        replica, acts = step(replica, event, now)
        spawned += acts.count("spawn")
        if replica.state in ("idle", "failed", "stopped"):
            assert replica.pid is None
            assert replica.secret is None
        if replica.state == "ready":
            assert replica.url
        assert replica.failures <= spawned
    if replica.state == "stopped":
        assert step(replica, Want(), now)[0] is replica
