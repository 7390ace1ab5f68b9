"""A name without a kind: what is said of it."""

import pytest

from freehold.control.keys import KeyView
from freehold.control.subjects import check_kind
from freehold.errors import Invalid


def _key(ident: str, principal: str, team: str | None = None, state: str = "live") -> KeyView:
    return KeyView(
        id=ident, principal=principal, role="developer", created=1.0, expires=None, revoked=None,
        state=state, team=team,
    )  # fmt: skip


KEYS = [
    _key("ab12", "bob", "support"), _key("cd34", "support"), _key("ef56", "gone", state="revoked"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("bob", "deployment:NAME; did you mean principal:bob or key:ab12?"),
        ("ab12", "did you mean key:ab12?"),
        ("support", "did you mean principal:support or team:support or key:cd34?"),
        ("smol", "did you mean deployment:smol?"),
        ("gone", "write key:ID, principal:NAME, team:NAME or deployment:NAME"),
        ("", "write key:ID, principal:NAME, team:NAME or deployment:NAME"),
    ],
)
def test_what_was_probably_meant_is_said(name: str, told: str) -> None:
    with pytest.raises(Invalid) as refused:
        check_kind(name, KEYS, ["smol"])
    assert refused.value.message.endswith(told)


def test_a_name_with_its_kind_is_not_asked_about() -> None:
    check_kind("principal:bob", KEYS, [])
