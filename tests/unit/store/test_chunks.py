"""Cuts follow the content."""

import hashlib
import io
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.store.chunks import LONGEST, PART, SHORTEST, Recipe, cuts, pieces, recipe_of, shared


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


DATA = noise(1, 24_000_000)


def chunks(data: bytes, at: list[int] | None = None) -> list[bytes]:
    return list(pieces(io.BytesIO(data), at or []))


def test_the_pieces_are_the_file_and_of_good_size() -> None:
    found = chunks(DATA)
    assert b"".join(found) == DATA
    assert all(SHORTEST <= len(each) <= LONGEST for each in found[:-1])
    assert 10 <= len(found) <= 60


def test_an_insertion_moves_the_cuts_nearby_only() -> None:
    changed = DATA[:9_000_000] + b"inserted" + DATA[9_000_000:]
    before, after = set(chunks(DATA)), set(chunks(changed))
    assert len(after - before) <= 3
    assert sum(map(len, before & after)) > 0.7 * len(DATA)


def test_a_flipped_byte_changes_one_chunk_or_two() -> None:
    changed = bytearray(DATA)
    changed[9_000_000] ^= 1
    assert 1 <= len(set(chunks(bytes(changed))) - set(chunks(DATA))) <= 2


def test_parts_are_cut_where_they_begin_and_end() -> None:
    part, at = noise(2, 700_000), [1_000_000, 1_700_000]
    one = chunks(DATA[:1_000_000] + part + DATA[1_000_000:2_000_000], at)
    other = chunks(noise(3, 400_000) + part + noise(4, 99_999), [400_000, 1_100_000])
    assert b"".join(each for each in one if each in other) == part


def test_bytes_without_any_mark_are_cut_at_the_longest() -> None:
    assert [len(each) for each in chunks(bytes(LONGEST * 2 + 5))] == [LONGEST, LONGEST, 5]
    assert chunks(b"") == []


def test_small_neighbours_stay_together() -> None:
    starts = [0, 100, 200, 200 + PART, 300 + PART, 400 + PART]
    assert cuts(starts, 500 + PART) == [200, 200 + PART]
    assert cuts([0, 10], 20) == []
    assert cuts([-5, 0, PART, PART * 3, PART * 9], PART * 3) == [PART]


@settings(deadline=None)
@given(st.lists(st.integers(0, 3_000_000), max_size=20), st.integers(0, 2_000_000))
def test_any_positions_give_back_the_file(starts: list[int], size: int) -> None:
    data = DATA[:size]
    recipe, digest = recipe_of(io.BytesIO(data), cuts(starts, size))
    assert recipe.bytes == size
    assert digest == hashlib.sha256(data).hexdigest()
    assert all(0 < chunk.bytes <= LONGEST for chunk in recipe.chunks)


def test_a_slow_reader_changes_nothing() -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, 70_001))

    assert list(pieces(Slow(DATA[:6_000_000]))) == chunks(DATA[:6_000_000])


def test_what_is_shared_is_counted() -> None:
    one, _ = recipe_of(io.BytesIO(DATA[:8_000_000]))
    other, _ = recipe_of(io.BytesIO(noise(5, 3_000_000)))
    assert shared({"a": one, "b": one, "c": other}) == {"a": 8_000_000, "b": 8_000_000, "c": 0}
    assert shared({"c": other}) == {"c": 0}
    assert shared({"d": Recipe((*other.chunks, *other.chunks))}) == {"d": 6_000_000}
