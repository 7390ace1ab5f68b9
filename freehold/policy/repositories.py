"""Who may pull from, push to, or delete in a repository of our own registry. Pure.

The role decides, as everywhere, until something is granted in a repository. From then on it is
open to those named only, administrators apart: ``read`` pulls, ``write`` pushes as well. What is
granted counts whatever the role.
"""

from collections.abc import Iterable
from typing import Literal, get_args

from freehold.errors import Forbidden, FreeholdError, Invalid
from freehold.identity.keys import Principal
from freehold.policy.permissions import permit
from freehold.store.repositories import Grant

Access = Literal["read", "write"]
Act = Literal["read", "write", "remove"]
KINDS = ("principal", "team", "key")
_PERMISSIONS: dict[Act, str] = {
    "read": "model:read", "write": "model:import", "remove": "model:remove",
}  # fmt: skip


def permit_repository(
    principal: Principal, repository: str, act: Act, grants: Iterable[Grant]
) -> None:
    """Return when the principal may do this there, else raise ``Forbidden``."""
    here = [grant for grant in grants if grant.repository == repository]
    if principal.role == "admin" or not here:
        permit(principal, _PERMISSIONS[act])
        return
    named = {"principal": principal.name, "team": principal.team, "key": principal.key}
    own = {f"{kind}:{name}" for kind, name in named.items() if name}
    has = {grant.access for grant in here if grant.subject in own}
    wanted = {"write"} if act != "read" else {"read", "write"}
    if not has & wanted:
        raise Forbidden(
            "forbidden.repository",
            f"{principal.name} may not {act} in the repository {repository}: what is granted there "
            "says who may; an administrator can grant it",
        )


def may(principal: Principal, repository: str, act: Act, grants: Iterable[Grant]) -> bool:
    """Say whether the principal may do this there."""
    try:
        permit_repository(principal, repository, act, grants)
    except FreeholdError:
        return False
    return True


def check_grant(subject: str, access: str) -> None:
    """Raise ``Invalid`` for what cannot be granted, or to nobody of that kind."""
    kind, _, name = subject.partition(":")
    if kind not in KINDS or not name or len(subject) > 200:
        raise Invalid("invalid.grant", "write principal:NAME, team:NAME or key:ID", param="subject")
    if access not in get_args(Access):
        raise Invalid("invalid.grant", "access is read or write", param="access")
