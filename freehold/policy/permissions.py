"""Roles and what each may do. Pure: a table and a look-up."""

from types import MappingProxyType

from freehold.errors import Forbidden, Invalid
from freehold.identity.keys import Principal

PERMISSIONS = MappingProxyType(
    {
        "completion:run": "send requests to deployments",
        "model:read": "see models, versions and the catalog",
        "model:import": "bring models in, compress and try them, and label versions",
        "model:remove": "remove models and versions",
        "model:release": "ask for, or confirm, the release of a version in quarantine",
        "licence:accept": "accept licences of models that must be accepted",
        "model:push": "send models to registries elsewhere",
        "job:cancel": "end long work, of kinds that one may start",
        "grant:read": "see who may use which repository of the registry",
        "grant:write": "say who may use which repository of the registry",
        "deployment:read": "see deployments and their replicas",
        "deployment:write": "deploy, undeploy and apply documents",
        "engine:write": "build engines, take in prebuilt ones, remove them",
        "secret:refer": "name keys and certificates that endpoints are sent",
        "gateway:restart": "put settings and certificates in force, and replace the gateways",
        "key:read": "see keys (never their secrets)",
        "key:write": "create and revoke keys",
        "limit:read": "see limits and what is used of them",
        "limit:write": "set and remove limits",
        "usage:read": "see everybody's usage",
        "audit:read": "read the record of requests and acts",
        "metrics:read": "read the numbers of the whole house, for scrapers",
    }
)
"""Every permission and what it allows."""

_OPERATOR = frozenset(
    {
        "completion:run",
        "model:read",
        "model:import",
        "model:remove",
        "licence:accept",
        "model:push",
        "job:cancel",
        "deployment:read",
        "deployment:write",
        "limit:read",
        "gateway:restart",
        "usage:read",
        "metrics:read",
    }
)

ROLES = MappingProxyType(
    {
        "admin": frozenset(PERMISSIONS),
        "operator": _OPERATOR,
        "developer": frozenset({"completion:run", "model:read", "deployment:read"}),
        "auditor": frozenset(
            {
                "model:read",
                "deployment:read",
                "key:read",
                "grant:read",
                "limit:read",
                "usage:read",
                "audit:read",
                "metrics:read",
            }
        ),
    }
)
"""Every role and its permissions."""


def permit(principal: Principal, permission: str) -> None:
    """Return when the principal's role has the permission, else raise ``Forbidden``."""
    if permission not in ROLES.get(principal.role, frozenset()):
        allowed = sorted(role for role, has in ROLES.items() if permission in has)
        raise Forbidden(
            "forbidden.role",
            f"the role {principal.role} may not do {permission}; it takes: {', '.join(allowed)}",
        )


def check_role(role: str) -> None:
    """Raise ``Invalid`` unless the role exists."""
    if role not in ROLES:
        raise Invalid("invalid.role", f"no role {role}: choose {', '.join(ROLES)}", param="role")
