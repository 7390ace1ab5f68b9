"""Which ranges are asked for, and what lies beside a file that is not yet whole."""

from pathlib import Path

import pytest

from freehold.models import ranges
from freehold.models.partial import Partial
from freehold.models.ranges import RANGE, Span, add, count, first, is_answer, is_worth, missing


@pytest.mark.parametrize(
    ("held", "span", "joined"),
    [
        ((), (0, 5), ((0, 5),)),
        (((0, 5),), (5, 9), ((0, 9),)),
        (((0, 5),), (7, 9), ((0, 5), (7, 9))),
        (((0, 5), (7, 9)), (4, 8), ((0, 9),)),
        (((2, 9),), (3, 4), ((2, 9),)),
        (((2, 9),), (3, 3), ((2, 9),)),
    ],
)
def test_what_touches_is_joined(
    held: tuple[Span, ...], span: Span, joined: tuple[Span, ...]
) -> None:
    assert add(held, span) == joined


def test_what_is_missing_is_asked_for_from_the_front() -> None:
    assert missing((), RANGE + 1) == [(0, RANGE), (RANGE, RANGE + 1)]
    assert missing(((0, 10), (20, 30)), 35) == [(10, 20), (30, 35)]
    assert missing(((0, 35),), 35) == []
    assert (first(((0, 10), (20, 30))), first(((1, 2),)), first(())) == (10, 0, 0)
    assert count(((0, 10), (20, 30))) == 20
    assert (is_worth(None), is_worth(ranges.LEAST - 1), is_worth(ranges.LEAST)) == (
        False, False, True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("told", "good"),
    [
        ("bytes 10-19/100", True),
        ("bytes 10-19/*", True),
        ("bytes 10-19/101", False),
        ("bytes 11-19/100", False),
        ("bytes 10-18/100", False),
        ("bytes 10-20/100", False),
        ("10-19/100", False),
        ("bytes 10-19/1e2", False),
        (None, False),
    ],
)
def test_only_the_range_that_was_asked_for_is_taken(told: str | None, good: bool) -> None:
    assert is_answer(told, (10, 20), 100) is good


def began(path: Path) -> Partial:
    partial = Partial(path, 100)
    partial.open()
    assert partial.agree('"a"')
    partial.write(0, memoryview(b"x" * 10))
    partial.write(50, memoryview(b"y" * 10))
    partial.close()
    return partial


def test_what_has_come_is_known_to_the_next_process(tmp_path: Path) -> None:
    began(tmp_path / "p")
    again = Partial(tmp_path / "p", 100)
    assert (again.held, again.first, again.bytes) == (((0, 10), (50, 60)), 10, 20)
    assert not again.agree('"b"')
    assert again.agree('"a"')
    assert again.agree(None)


def test_bytes_out_of_order_never_lie_there_without_their_record(tmp_path: Path) -> None:
    partial = Partial(tmp_path / "p", 100)
    partial.open()
    partial.write(50, memoryview(b"y" * 10))  # and killed before anything else was written down
    assert Partial(tmp_path / "p", 100).held == ()
    assert Partial(tmp_path / "p", 100).first == 0


@pytest.mark.parametrize(
    "record",
    [b"", b"{", b'{"size":100,"state":null,"held":[[0,99]]}', b'{"size":99,"state":null,"held":[]}',
     b'{"size":100,"state":null,"held":[[5,9],[0,3]]}',
     b'{"size":100,"state":null,"held":[[-5,9]]}', b"\xff"],
)  # fmt: skip
def test_a_record_that_makes_no_sense_is_not_believed(tmp_path: Path, record: bytes) -> None:
    began(tmp_path / "p")
    (tmp_path / "p.ranges").write_bytes(record)
    assert Partial(tmp_path / "p", 100).held == ()
    assert list(tmp_path.iterdir()) == []


def test_without_a_record_what_lies_there_is_the_beginning(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"x" * 30)
    assert Partial(tmp_path / "p", 100).held == ((0, 30),)
    assert Partial(tmp_path / "p", 20).held == ()
    began(tmp_path / "q").settle()
    assert [each.name for each in tmp_path.iterdir()] == ["q"]
