"""Whose keys come from whom."""

import pytest

from freehold.identity.makers import one_made_the_other
from freehold.store.credentials import KeyRow


def _keys(*made: tuple[str, str | None]) -> list[KeyRow]:
    return [
        KeyRow(id=str(n), principal=whose, role="admin", digest=str(n), created=1.0, created_by=by)
        for n, (whose, by) in enumerate(made)
    ]


HOUSE = _keys(
    ("admin", None), ("ann", "admin"), ("bob", "admin"), ("zed", "ann"), ("yak", "zed"),
    ("bob", "bob"), ("old", None), ("round", "about"), ("about", "round"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("one", "other", "made"),
    [
        ("ann", "bob", False),
        ("admin", "ann", True),
        ("zed", "ann", True),
        ("yak", "ann", True),
        ("yak", "admin", True),
        ("yak", "bob", False),
        ("old", "ann", False),
        ("old", "admin", False),
        ("round", "about", True),
        ("round", "ann", False),
        ("nobody", "ann", False),
        ("local:root", "admin", True),
        ("local:root", "yak", True),
        ("local:root", "local:me", True),
    ],
)
def test_one_made_the_other(one: str, other: str, made: bool) -> None:
    assert one_made_the_other(one, other, HOUSE) is made
    assert one_made_the_other(other, one, HOUSE) is made


def test_a_second_key_counts_and_a_dead_one_too() -> None:
    dead = KeyRow(
        id="d",
        principal="bob",
        role="admin",
        digest="d",
        created=1.0,
        revoked=2.0,
        created_by="ann",
    )
    assert one_made_the_other("ann", "bob", [*HOUSE, dead])
