"""What others build on is brought in first, and what has nothing to do with it at the same time."""

import itertools

import pytest

from freehold.control.arrivals import chains
from freehold.control.deployments import ModelEntry
from freehold.errors import Invalid


def entry(name: str, digest: str, source: str = "file", **more: str) -> ModelEntry:
    return ModelEntry(name=name, source=source, sha256=digest * 64, **more)


BASE = entry("base", "a")
MADE = entry("base", "b", "convert:base:1:f16", parent="a" * 64)
LORA = entry("adds", "c", base="base", parent="a" * 64)
LORA_MADE = entry("adds", "d", "convert:adds:1", parent="c" * 64)
OTHER = entry("other", "e")


def test_everything_comes_after_what_it_needs_in_whatever_order_it_is_named() -> None:
    for given in itertools.permutations([BASE, MADE, LORA, LORA_MADE, OTHER]):
        names = [e.sha256 for e in given]
        if names.index(BASE.sha256) > names.index(MADE.sha256):
            continue  # versions of one model keep their order
        if names.index(LORA.sha256) > names.index(LORA_MADE.sha256):
            continue
        found = sorted(chains(given), key=len)
        assert found[0] == [OTHER]
        assert found[1] == [BASE, MADE, LORA, LORA_MADE]


def test_a_base_by_its_name_only_comes_first_too() -> None:
    assert chains([entry("adds", "c", base="base"), BASE]) == [
        [BASE, entry("adds", "c", base="base")]
    ]
    bare = entry("base", "b", "convert:base:1")
    assert chains([BASE, bare]) == [[BASE, bare]]


def test_versions_of_one_model_keep_their_order() -> None:
    two = [entry("m", "b"), entry("m", "a")]
    assert chains(two) == [two]


def test_what_is_made_of_each_other_is_refused() -> None:
    with pytest.raises(Invalid, match="made of each other"):
        chains([entry("a", "1", base="b"), entry("b", "2", base="a")])
