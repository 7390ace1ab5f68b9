"""Keys and what they stand for."""

from contextlib import suppress
from pathlib import Path

import pytest

from freehold.errors import Broken, Forbidden, Invalid, Unauthenticated
from freehold.identity.keys import (
    MOST_KNOWN,
    Callers,
    Principal,
    authenticate,
    keyed_hash,
    mint,
    read_pepper,
)
from freehold.policy.permissions import PERMISSIONS, ROLES, check_role, permit
from freehold.store.snapshot import KeyGrant

PEPPER = b"p" * 32


def test_a_key_is_known_by_its_keyed_hash_only() -> None:
    key_id, text = mint()
    grants = {keyed_hash(PEPPER, text): KeyGrant(id=key_id, principal="ann", role="developer")}
    found = authenticate(grants, PEPPER, f"Bearer {text}", 0)
    assert found == Principal(name="ann", role="developer", key=key_id)
    with pytest.raises(Unauthenticated, match="unknown or revoked"):
        authenticate(grants, b"q" * 32, f"Bearer {text}", 0)
    assert text not in repr(grants)


def test_an_expired_key_names_itself_and_not_its_secret() -> None:
    key_id, text = mint()
    grant = KeyGrant(id=key_id, principal="ann", role="developer", expires=100.0)
    grants = {keyed_hash(PEPPER, text): grant}
    assert authenticate(grants, PEPPER, f"bearer {text}", 99.9)
    with pytest.raises(Unauthenticated, match=key_id) as caught:
        authenticate(grants, PEPPER, f"Bearer {text}", 100.0)
    assert text not in str(caught.value)


def test_keys_do_not_repeat() -> None:
    assert len({mint()[1] for _ in range(1000)}) == 1000


def test_the_pepper_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "pepper"
    assert read_pepper(path, fresh=True) == read_pepper(path)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(Broken):
        read_pepper(path)


def test_every_role_is_made_of_permissions_that_exist() -> None:
    for role, has in ROLES.items():
        assert has <= set(PERMISSIONS)
        check_role(role)
    assert ROLES["admin"] == set(PERMISSIONS)
    assert "completion:run" not in ROLES["auditor"]
    with pytest.raises(Invalid):
        check_role("king")


def test_a_role_nobody_knows_may_nothing() -> None:
    with pytest.raises(Forbidden):
        permit(Principal(name="x", role="ghost", key=""), "completion:run")


def test_who_is_known_by_sight_is_so_no_longer_than_their_key_holds() -> None:
    (key, text), (other, _) = mint(), mint()
    hashed = keyed_hash(PEPPER, text)
    grant = KeyGrant(id=key, principal="ann", role="admin", expires=100.0)
    grants = {hashed: grant, "x": KeyGrant(id=other, principal="bob", role="admin")}
    callers, header = Callers(PEPPER), f"Bearer {text}"
    assert callers.who(grants, header, 0).name == "ann"
    assert callers.who(grants, header, 99.9).name == "ann"
    with pytest.raises(Unauthenticated, match="expired"):
        callers.who(grants, header, 100.0)
    changed = {hashed: KeyGrant(id=key, principal="ann", role="user")}
    assert callers.who(changed, header, 200.0).role == "user"
    with pytest.raises(Unauthenticated, match="unknown or revoked"):
        callers.who({}, header, 0)
    for wrong in (None, "", "Basic x", f"Bearer {text}x"):
        with pytest.raises(Unauthenticated):
            callers.who(changed, wrong, 0)


def test_what_is_remembered_of_callers_is_bounded() -> None:
    _, text = mint()
    grants = {keyed_hash(PEPPER, text): KeyGrant(id="k", principal="ann", role="admin")}
    callers = Callers(PEPPER)
    for number in range(3 * MOST_KNOWN):
        with suppress(Unauthenticated):
            callers.who(grants, f"Bearer {number}", 0)
        callers.who(grants, "Bearer " + " " * (number % 150) + text, 0)
    assert len(callers._known) <= MOST_KNOWN + 1
