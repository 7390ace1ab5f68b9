"""Leases: what runs where, in this process and in all of them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from freehold.gateway.wire import chat
from freehold.gateway.wire.call import Call
from freehold.runtime.leases import SLOTS, Leases, open_board
from freehold.store.board import Board
from freehold.store.snapshot import Target


@contextmanager
def holding(leases: Leases, target: Target, work: int) -> Iterator[None]:
    leases.take(target, work)
    try:
        yield
    finally:
        leases.give(target, work)


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


@pytest.fixture
def boards(tmp_path: Path) -> Iterator[list[Board]]:
    opened = [board for slot in (1, 2) if (board := open_board(tmp_path, slot)) is not None]
    yield opened
    for board in opened:
        board.close()


def test_work_is_that_of_all_gateways(boards: list[Board]) -> None:
    one, other = (Leases(lambda: 1.0, board) for board in boards)
    with holding(one, A, 100), holding(other, A, 20), holding(other, B, 3):
        assert [one.work(t) for t in (A, B, C)] == [120, 3, 0]
        assert [other.work(t) for t in (A, B, C)] == [120, 3, 0]
        assert (one.inflight, other.inflight) == ({"a": 1}, {"a": 1, "b": 1})
    assert [one.work(t) for t in (A, B, C)] == [0, 0, 0]
    assert (one.inflight, one.used) == ({}, {"a": 1.0})


def test_what_a_killed_gateway_held_is_gone_when_its_successor_starts(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path\n"
        "from freehold.runtime.leases import Leases, open_board\n"
        "from tests.unit.runtime.test_leases import A\n"
        "leases = Leases(lambda: 1.0, open_board(Path(sys.argv[1]), 2))\n"
        "leases.take(A, 500); os._exit(9)"
    )
    ran = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert ran.returncode == 9
    board = open_board(tmp_path, 1)
    assert board is not None
    leases = Leases(lambda: 1.0, board)
    assert leases.work(A) == 500
    successor = open_board(tmp_path, 2)
    assert successor is not None
    assert leases.work(A) == 0
    for each in (board, successor):
        each.close()


def test_a_gateway_without_a_slot_counts_its_own(tmp_path: Path) -> None:
    assert open_board(tmp_path, SLOTS) is None
    leases = Leases(lambda: 1.0, None)
    with holding(leases, A, 7):
        assert leases.work(A) == 7
    assert leases.work(A) == 0


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="only where pages can be reserved")
def test_no_page_of_the_board_is_still_to_be_found_room_for(tmp_path: Path) -> None:
    board = open_board(tmp_path, 1)
    assert board is not None
    board.close()
    stat = (tmp_path / "work.board").stat()
    assert stat.st_blocks * 512 >= stat.st_size


def test_answers_are_learned_by_deployment() -> None:
    leases = Leases(lambda: 1.0)
    assert leases.mean_answer("d") is None
    leases.learn("d", 100)
    assert leases.mean_answer("d") == 100
    leases.learn("d", 0)
    assert leases.mean_answer("d") == 90
