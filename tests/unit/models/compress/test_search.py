"""Which type each tensor gets."""

import itertools
import random

from freehold.models.compress.search import Option, best, frontier, hull, smallest


def options(*triples: tuple[str, int, float]) -> list[Option]:
    return [Option(*triple) for triple in triples]


def test_an_option_that_buys_nothing_is_left_out() -> None:
    found = hull(options(("a", 10, 5.0), ("b", 20, 5.0), ("c", 30, 1.0), ("d", 40, 2.0)))
    assert [option.kind for option in found] == ["a", "c"]


def test_each_byte_on_a_hull_buys_less_than_the_one_before() -> None:
    draw = random.Random(3)
    for _ in range(50):
        given = [Option(str(n), draw.randint(1, 99), draw.random()) for n in range(9)]
        found = hull(given)
        worth = [(a.loss - b.loss) / (b.bytes - a.bytes) for a, b in itertools.pairwise(found)]
        assert worth == sorted(worth, reverse=True)
        assert all(rate > 0 for rate in worth)


def test_two_options_of_one_size_give_the_better_one() -> None:
    found = hull(options(("worse", 10, 5.0), ("better", 10, 4.0), ("full", 20, 0.0)))
    assert [option.kind for option in found] == ["better", "full"]


def test_bytes_go_where_they_matter_most() -> None:
    tensors = {
        "tender": options(("small", 10, 9.0), ("large", 20, 0.0)),
        "robust": options(("small", 10, 1.0), ("large", 20, 0.0)),
    }
    assert best(tensors, 30).kinds == {"tender": "large", "robust": "small"}
    assert smallest(tensors, 1.0).kinds == {"tender": "large", "robust": "small"}
    assert smallest(tensors, 0.5).kinds == {"tender": "large", "robust": "large"}


def test_what_cannot_be_met_gives_the_nearest() -> None:
    tensors = {"only": options(("small", 10, 9.0), ("large", 20, 1.0))}
    assert smallest(tensors, 0.0).kinds == {"only": "large"}
    assert best(tensors, 5).kinds == {"only": "small"}


def test_a_choice_is_never_over_its_size_and_near_the_best_there_is() -> None:
    draw = random.Random(5)
    for _ in range(30):
        tensors = {
            name: [
                Option(str(bits), bits * 10, draw.random() / 4**bits) for bits in (2, 3, 4, 5, 8)
            ]
            for name in "abcd"
        }
        size = draw.randint(80, 320)
        found = best(tensors, size)
        assert found.bytes <= size
        every = [
            sum(option.loss for option in mixture)
            for mixture in itertools.product(*tensors.values())
            if sum(option.bytes for option in mixture) <= size
        ]
        assert found.loss <= 1.6 * min(every) + 1e-12
        assert abs(found.loss - sum(
            next(o.loss for o in tensors[n] if o.kind == k) for n, k in found.kinds.items()
        )) < 1e-12  # fmt: skip


def test_what_a_large_step_leaves_of_the_loss_is_used() -> None:
    """The large one must be faithful; then the small ones may all be coarse."""
    tensors = {
        "large": options(("s", 100, 8.0), ("l", 200, 0.0)),
        **{name: options(("s", 1, 1.0), ("l", 3, 0.0)) for name in "abcd"},
    }
    within = [choice for choice in frontier(tensors) if choice.loss <= 4]
    assert within[0].bytes == 212
    found = smallest(tensors, 3)
    assert (found.bytes, found.loss) == (206, 3)
    assert found.kinds["large"] == "l"


def test_the_smallest_is_never_over_its_loss_and_never_over_the_line() -> None:
    draw = random.Random(9)
    for _ in range(30):
        tensors = {
            name: [
                Option(str(bits), bits * 10, draw.random() / 4**bits) for bits in (2, 3, 4, 5, 8)
            ]
            for name in "abcd"
        }
        loss = draw.random() / 30 + 0.001
        found = smallest(tensors, loss)
        assert found.loss <= loss
        assert found.bytes <= min(c.bytes for c in frontier(tensors) if c.loss <= loss)
        assert found.bytes == sum(
            next(o.bytes for o in tensors[n] if o.kind == k) for n, k in found.kinds.items()
        )


def test_the_line_goes_from_small_to_faithful() -> None:
    tensors = {n: options(("s", 10, 4.0), ("m", 14, 1.0), ("l", 30, 0.0)) for n in "ab"}
    line = frontier(tensors)
    assert [choice.bytes for choice in line] == sorted(choice.bytes for choice in line)
    losses = [choice.loss for choice in line]
    assert losses == sorted(losses, reverse=True)
