"""A proof fits one question, one answer and one secret."""

import pytest

from freehold.gateway.proof import Challenge, challenge


def test_a_proof_fits_what_it_was_made_for() -> None:
    own = challenge("secret")
    assert own.holds(own.ask(b"/path", b"body"), own.ask(b"/path", b"body"))
    assert challenge("secret").nonce != own.nonce


@pytest.mark.parametrize(
    "other",
    [
        Challenge("other", "1").ask(b"ab", b"c"),
        Challenge("secret", "2").ask(b"ab", b"c"),
        Challenge("secret", "1").ask(b"a", b"bc"),
        Challenge("secret", "1").answer(b"ab", b"c"),
        "",
        "\udcff",
        None,
    ],
)
def test_anything_else_is_refused(other: str | None) -> None:
    own = Challenge("secret", "1")
    assert not own.holds(other, own.ask(b"ab", b"c"))


def test_no_secret_proves_nothing() -> None:
    for own in (Challenge("", "1"), Challenge("secret", "")):
        assert not own.holds(own.ask(b"x"), own.ask(b"x"))
