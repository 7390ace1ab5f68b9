"""The fair line: whose turn it is, who is shed, as arithmetic."""

from collections import Counter

from freehold.policy.line import Line, expected, goes, tag, victim


def served(weights: dict[str, int], arrivals: list[str], rounds: int) -> Counter[str]:
    """Let everybody arrive at once; count who is served in so many turns."""
    line: Line[str] = Line()
    last = dict.fromkeys(weights, 0)
    for tenant in arrivals:
        last[tenant] = tag(0, last[tenant], weights[tenant])
        line.join(tenant, last[tenant], tenant)
    return Counter(line.pop() for _ in range(rounds))


def test_who_sends_a_thousand_does_not_go_before_who_sends_ten() -> None:
    arrivals = ["greedy"] * 1000 + ["modest"] * 10
    assert served({"greedy": 1, "modest": 1}, arrivals, 20)["modest"] == 10


def test_weights_are_shares() -> None:
    found = served({"a": 3, "b": 1}, ["a", "b"] * 100, 80)
    assert found == {"a": 60, "b": 20}


def test_who_was_away_has_saved_nothing_up() -> None:
    assert tag(50_000_000, 0, 1) == 51_000_000
    assert tag(0, 50_000_000, 1) == 51_000_000
    assert tag(0, 0, 10**9) > 0


def test_a_head_goes_when_there_is_a_slot_and_it_is_the_first_of_all_gateways() -> None:
    assert goes(5, [], 0, 1)
    assert not goes(5, [], 1, 1)
    assert goes(5, [5, 9], 0, 1)
    assert not goes(5, [4], 0, 1)
    assert goes(5, [4], 99, None)


def test_a_full_line_sheds_whoever_has_most_in_it() -> None:
    assert victim({"a": 5, "b": 1}, "b") == "a"
    assert victim({"a": 2, "b": 2}, "b") == "b"
    assert victim({"a": 1}, "a") == "a"
    assert expected(10, 4, 2.0) == 5.0


def test_leaving_the_line() -> None:
    line: Line[str] = Line()
    numbers = [line.join("a", at, f"a{at}") for at in (3, 1, 2)]
    assert line.last_of("a") == (numbers[0], "a3")
    line.leave(numbers[1])
    line.leave(numbers[1])
    assert (len(line), line.head()) == (2, 2)
    assert [line.pop(), line.pop()] == ["a2", "a3"]
    line.leave(numbers[0])
    assert (len(line), line.head(), line.waiting) == (0, 0, Counter())
