"""Dispatch: which replica a call is brought to, given what ran there before."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from freehold.errors import EngineLost
from freehold.gateway.dispatch import Dispatch
from freehold.gateway.wire import chat, completions, embeddings
from freehold.gateway.wire.call import Call
from freehold.runtime.leases import Leases, open_board
from freehold.store.marks import Marks
from freehold.store.snapshot import Target


@contextmanager
def holding(dispatch: Dispatch, call: Call, deployment: str, target: Target) -> Iterator[None]:
    held = dispatch.take(call, deployment, target)
    error: BaseException | None = None
    try:
        yield
    except BaseException as problem:
        error = problem
        raise
    finally:
        held.end(error)


A, B, C = (
    Target(replica=name, url=f"http://{name}", key=None, model="m", streams_only=True)
    for name in "abc"
)


def ask(letter: bytes) -> Call:
    content = letter * 1000
    return chat.read(
        b'{"model": "m", "max_tokens": 10, "messages": [{"content": "%b", "role": "user"}]}'
        % content
    )


CALL = ask(b"x")


def test_two_gateways_do_not_pick_the_same_idle_replica(tmp_path: Path) -> None:
    marks = Marks()
    boards = [open_board(tmp_path, slot) for slot in (1, 2)]
    gateways = [Dispatch(Leases(lambda: 1.0, board), marks) for board in boards]
    picked = []
    with ExitStack() as held:
        for number in range(6):
            gateway = gateways[number % 2]
            call = ask(b"%d" % number)
            picked.append(gateway.order(call, (A, B, C))[0])
            held.enter_context(holding(gateway, call, "d", picked[-1]))
    assert {t.replica for t in picked[:3]} == {"a", "b", "c"}
    assert sorted(t.replica for t in picked) == list("aabbcc")


def test_a_learned_answer_is_expected_again() -> None:
    leases = Leases(lambda: 1.0)
    dispatch = Dispatch(leases, Marks())
    dispatch.learn("d", 190)
    dispatch.learn("d", 0)
    dispatch.learn(None, 5)
    assert leases.mean_answer("d") == 190


def test_a_conversation_returns_until_its_engine_is_lost() -> None:
    leases = Leases(lambda: 1.0)
    dispatch = Dispatch(leases, Marks())
    with holding(dispatch, CALL, "d", C):
        assert leases.work(C) > 200
    with holding(dispatch, CALL, "d", B), holding(dispatch, CALL, "d", A):
        assert dispatch.order(CALL, (A, B, C))[0] == C
    again = leases.work(C)
    with holding(dispatch, CALL, "d", C):
        assert leases.work(C) - again < 100, "what was read already is not work"
    with pytest.raises(EngineLost), holding(dispatch, CALL, "d", C):
        raise EngineLost("unavailable.engine_lost", "gone")
    assert dispatch.order(CALL, (A, B, C))[0] != C


def test_an_engine_started_again_has_read_nothing() -> None:
    dispatch = Dispatch(Leases(lambda: 1.0), Marks())
    with holding(dispatch, CALL, "d", B):
        pass
    assert dispatch.order(CALL, (A, B))[0] == B
    again = Target(replica="b", url="http://b2", key=None, model="m", streams_only=True)
    assert dispatch.order(CALL, (A, again))[0] == A


def test_an_open_circuit_is_left_alone() -> None:
    dispatch = Dispatch(Leases(lambda: 1.0), Marks(), is_open=lambda target: target in (A, C))
    assert dispatch.order(CALL, (A, B, C)) == [B]
    assert dispatch.order(CALL, (A, C)) == []


def test_other_dialects_are_weighed_too() -> None:
    leases = Leases(lambda: 1.0)
    dispatch = Dispatch(leases, Marks())
    text = completions.read(b'{"model": "m", "prompt": "%b", "max_tokens": 5}' % (b"y" * 600))
    with holding(dispatch, text, "d", A):
        assert leases.work(A) >= 150 + 20
    assert dispatch.order(text, (B, A))[0] == A
    vector = embeddings.read(b'{"model": "m", "input": "%b"}' % (b"y" * 600))
    with holding(dispatch, vector, "d", B):
        assert 150 <= leases.work(B) < 170, "an embedding writes nothing"
    with_tools = chat.read(
        b'{"model": "m", "tools": [{"x": 1}], "messages": [{"content": "%b", "role": "user"}]}'
        % (b"x" * 1000)
    )
    with holding(dispatch, CALL, "d", C):
        pass
    assert dispatch.order(CALL, (A, B, C))[0] == C
    assert dispatch.order(with_tools, (A, B, C))[0] == A, "tools are rendered before messages"
