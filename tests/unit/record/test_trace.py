"""Trace context: read strictly, handed on exactly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.record.trace import Trace, read, start

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
SOUND = f"00-{TRACE}-{SPAN}-01"
IDS = "a" * 32 + "b" * 16


def test_a_callers_trace_goes_on_under_a_span_of_ours() -> None:
    caller = read([SOUND], ["vendor=x, other@system=y"])
    assert caller == Trace(TRACE, SPAN, "", 1, "vendor=x,other@system=y")
    ours = start(caller, IDS, ratio=0.0)
    assert (ours.id, ours.span, ours.parent, ours.sampled) == (TRACE, "b" * 16, SPAN, True)
    attempt = ours.child("c" * 16)
    assert attempt.headers == [
        ("traceparent", f"00-{TRACE}-{'c' * 16}-01"),
        ("tracestate", "vendor=x,other@system=y"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "garbage",
        SOUND.upper(),
        f" {SOUND}",
        f"{SOUND}\n",
        f"{SOUND}-",
        f"{SOUND}-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}0-{SPAN}-01",
        f"00-{TRACE[:-1]}g-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-0x",
        f"00-{TRACE}-{SPAN}",
        f"01-{TRACE}-{SPAN}-01more",
        f"00-{TRACE}-{SPAN}-\u0660\u0661",
        "00-" + "\u0664" * 32 + f"-{SPAN}-01",
        SOUND * 10_000,
    ],
)
def test_what_is_not_sound_is_not_there(text: str) -> None:
    assert read([text], ["a=b"]) is None
    assert start(read([text], []), IDS, ratio=1.0).id == "a" * 32


def test_two_parents_are_none() -> None:
    assert read([SOUND, SOUND], []) is None
    assert read([], ["a=b"]) is None


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    caller = read([f"cc-{TRACE}-{SPAN}-ff-what-the-future-brings"], [])
    assert caller is not None
    assert caller.child(SPAN).headers == [("traceparent", f"00-{TRACE}-{SPAN}-03")]


@pytest.mark.parametrize(
    "states",
    [
        ["a"],
        ["=b"],
        ["a="],
        ["A=b"],
        ["a=b=c"],
        ["a=ä"],
        ["a=b\x00"],
        ["a=b,a=c"],
        ["a=b", "a=c"],
        ["a=" + "x" * 257],
        ["x" * 257 + "=b"],
        ["a@B=c"],
        [",".join(f"k{n}=v" for n in range(33))],
        [",".join(f"k{n}={'v' * 60}" for n in range(9))],
    ],
)
def test_an_unsound_state_is_dropped_and_the_trace_kept(states: list[str]) -> None:
    caller = read([SOUND], states)
    assert caller == Trace(TRACE, SPAN, "", 1, "")


def test_states_of_several_headers_are_one_list() -> None:
    caller = read([SOUND], ["a=1,", " b=2 \t, ,c=3"])
    assert caller is not None
    assert caller.state == "a=1,b=2,c=3"


@pytest.mark.parametrize(("ratio", "kept"), [(0.0, 0), (1.0, 1000), (0.25, 250)])
def test_without_a_caller_the_share_decides(ratio: float, kept: int) -> None:
    step = (1 << 64) // 1000
    found = [start(None, "a" * 16 + f"{n * step:016x}" + "b" * 16, ratio) for n in range(1000)]
    assert abs(sum(trace.sampled for trace in found) - kept) <= 1


@given(st.text(max_size=80), st.lists(st.text(max_size=80), max_size=3))
def test_nothing_breaks_the_reader(parent: str, states: list[str]) -> None:
    read([parent], states)
    found = read([SOUND], states)
    assert found is not None
    assert found.state.isascii()
    assert "\n" not in found.state
