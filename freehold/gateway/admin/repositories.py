"""Repositories of our own registry: what is granted in them, and to whom."""

from typing import Literal

import msgspec

from freehold.control.control import Control
from freehold.gateway.admin.ask import Ask, Body
from freehold.policy.repositories import check_grant
from freehold.store.repositories import Grant


class RepositoryView(msgspec.Struct, frozen=True, kw_only=True):
    """A repository: its tags, and who was granted what; where nobody was, roles decide."""

    name: str
    tags: list[str]
    grants: list[Grant]


class GrantBody(Body, frozen=True):
    """Who shall ``read`` (pull), or ``write`` (push as well): principal:, team: or key:NAME."""

    repository: str
    subject: str
    access: Literal["read", "write"]


async def list_repositories(_ask: Ask, control: Control) -> list[RepositoryView]:
    """List the repositories of our own registry."""
    grants = control.repositories.grants()
    return [
        RepositoryView(
            name=name,
            tags=control.repositories.tags(name),
            grants=[grant for grant in grants if grant.repository == name],
        )
        for name in control.repositories.names()
    ]


async def list_grants(_ask: Ask, control: Control) -> list[Grant]:
    """List what is granted in repositories, also in those that are not there yet."""
    return control.repositories.grants()


async def grant(ask: Ask, control: Control) -> Grant:
    """Grant access to a repository; from then on it is theirs who are named in it."""
    body = ask.read(GrantBody)
    check_grant(body.subject, body.access)
    made = Grant(
        repository=body.repository,
        subject=body.subject,
        access=body.access,
        created=control.clock(),
        created_by=ask.principal.name,
    )
    control.repositories.grant(made)
    return made


async def take_back(ask: Ask, control: Control) -> list[Grant]:
    """Take back what was granted; show what is left."""
    control.repositories.take_back(ask.params["repository"], ask.params["subject"])
    return control.repositories.grants()
