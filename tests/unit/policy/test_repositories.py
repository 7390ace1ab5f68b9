"""Who may use a repository: roles, until something is granted there."""

import pytest

from freehold.errors import Forbidden, Invalid
from freehold.identity.keys import Principal
from freehold.policy.repositories import Act, check_grant, may, permit_repository
from freehold.store.repositories import Grant


def grant(subject: str, access: str, repository: str = "m") -> Grant:
    return Grant(
        repository=repository, subject=subject, access=access, created=0.0, created_by="admin"
    )


def principal(role: str = "developer", name: str = "ann", team: str | None = "red") -> Principal:
    return Principal(name=name, role=role, key="k1", team=team)


@pytest.mark.parametrize(
    ("role", "acts"),
    [("admin", {"read", "write", "remove"}), ("operator", {"read", "write", "remove"}),
     ("developer", {"read"}), ("auditor", {"read"}), ("nobody", set())],
)  # fmt: skip
def test_roles_decide_where_nothing_is_granted(role: str, acts: set[Act]) -> None:
    elsewhere = [grant("principal:bob", "write", "other")]
    for act in ("read", "write", "remove"):
        assert may(principal(role), "m", act, elsewhere) == (act in acts)


@pytest.mark.parametrize("subject", ["principal:ann", "team:red", "key:k1"])
def test_what_is_granted_counts_whatever_the_role(subject: str) -> None:
    reads, writes = [grant(subject, "read")], [grant(subject, "write")]
    for role in ("developer", "operator", "auditor"):
        assert may(principal(role), "m", "read", reads)
        assert not may(principal(role), "m", "write", reads)
        assert not may(principal(role), "m", "remove", reads)
        for act in ("read", "write", "remove"):
            assert may(principal(role), "m", act, writes)


def test_others_are_out_from_the_first_grant_on() -> None:
    grants = [grant("principal:bob", "read"), grant("team:None", "write"), grant("key:", "write")]
    for role in ("operator", "developer"):
        assert not may(principal(role, team=None), "m", "read", grants)
    assert may(principal("admin"), "m", "remove", grants)
    with pytest.raises(Forbidden, match="ann may not read in the repository m"):
        permit_repository(principal(), "m", "read", grants)


@pytest.mark.parametrize(
    ("subject", "access"),
    [("ann", "read"), ("user:ann", "read"), ("team:", "read"), ("team:red", "own"),
     ("team:" + "x" * 200, "read")],
)  # fmt: skip
def test_what_cannot_be_granted(subject: str, access: str) -> None:
    with pytest.raises(Invalid):
        check_grant(subject, access)
    check_grant("team:red", "write")
