"""Every URL of administration, on one screen."""

from typing import Any

from freehold.control.jobs import Job
from freehold.control.keys import KeyView, NewKey
from freehold.errors import Missing, WrongMethod
from freehold.gateway.admin import (
    compressions,
    conversions,
    deployments,
    engines,
    gateways,
    jobs,
    keys,
    limits,
    models,
    papers,
    records,
    releases,
    repositories,
    status,
    stock,
)
from freehold.gateway.admin.ask import Handler, Route
from freehold.models.catalog import CatalogEntry
from freehold.models.compress.report import Report
from freehold.models.deployment import Deployment
from freehold.models.registry import LaunchSettings
from freehold.store.repositories import Grant

D, M, K, L, R, P, G = deployments, models, keys, limits, records, papers, repositories


def _route(
    line: str, permission: str, handler: Handler, gives: Any, takes: Any = None, status: int = 200,
    query: dict[str, str] | None = None,
) -> Route:  # fmt: skip
    method, _, path = line.partition(" ")
    summary = (handler.__doc__ or "").partition("\n")[0]
    return Route(
        method=method, path=path, permission=permission, summary=summary, handler=handler,
        takes=takes, gives=gives, status=status, query=query or {},
    )  # fmt: skip


_MODEL = "/api/models/{model}"
_VERSION = f"{_MODEL}/versions/{{version}}"
_ALIAS = f"{_MODEL}/aliases/{{alias}}"
_PAGE = {
    "limit": "at most so many records, 1 to 1000",
    "before": "only records before this time, in epoch seconds",
    "principal": "only of this principal",
    "deployment": "only of this deployment",
    "id": "only this request",
    "action": "only of this action, as model:import",
    "outcome": "only with this outcome: ok, refused, failed, cancelled",
}

# fmt: off
ROUTES: tuple[Route, ...] = (
    _route("GET /api/status", "deployment:read", status.status, status.StatusView),
    _route("GET /api/catalog", "model:read", M.catalog, list[CatalogEntry]),
    _route("GET /api/models", "model:read", M.list_models, list[M.ModelSummary]),
    _route("POST /api/models", "model:import", M.bring_in, Job, M.ImportBody, 202),
    _route(f"GET {_MODEL}", "model:read", M.show, M.ModelView),
    _route(f"DELETE {_MODEL}", "model:remove", M.remove, M.Removed),
    _route(f"DELETE {_VERSION}", "model:remove", M.remove_version, M.Removed),
    _route(f"POST {_VERSION}/verify", "model:import", M.verify, Job, None, 202),
    _route(f"POST {_VERSION}/convert", "model:import", conversions.convert, Job,
           conversions.ConvertBody, 202),
    _route(f"GET {_VERSION}/card", "model:read", P.show_card, P.CardView),
    _route(f"PUT {_VERSION}/card", "model:import", P.set_card, P.CardView, P.CardBody),
    _route(f"GET {_VERSION}/bom", "model:read", P.bill_of_materials, dict[str, Any]),
    _route(f"GET {_VERSION}/signatures", "model:read", P.list_signatures, list[P.SignatureView]),
    _route(f"POST {_VERSION}/signatures", "model:import", P.sign, P.SignatureView,
           P.SignatureBody, 201),
    _route(f"DELETE {_VERSION}/signatures/{{signature}}", "model:remove", P.forget_signature,
           list[P.SignatureView]),
    _route(f"POST {_VERSION}/push", "model:push", P.push, Job, P.PushBody, 202),
    _route(f"GET {_VERSION}/settings", "model:read", M.show_settings, M.SettingsView),
    _route(f"PUT {_VERSION}/settings", "model:import", M.set_settings, M.SettingsView,
           LaunchSettings),
    _route(f"PUT {_ALIAS}", "model:import", M.promote, M.AliasView, M.AliasBody),
    _route(f"POST {_ALIAS}/rollback", "model:import", M.roll_back, M.AliasView),
    _route("GET /api/registry", "model:read", stock.show, stock.RegistryView),
    _route("POST /api/registry/gc", "model:remove", stock.collect, Job, stock.CollectBody,
           202),
    _route("POST /api/registry/verify", "model:import", stock.verify, Job, None, 202),
    _route(f"POST {_VERSION}/release", "model:release", releases.release, M.VersionView,
           releases.ReleaseBody),
    _route(f"POST {_MODEL}/accept", "licence:accept", releases.accept, releases.AcceptedView),
    _route("GET /api/repositories", "grant:read", G.list_repositories, list[G.RepositoryView]),
    _route("GET /api/grants", "grant:read", G.list_grants, list[Grant]),
    _route("PUT /api/grants", "grant:write", G.grant, Grant, G.GrantBody),
    _route("DELETE /api/grants/{repository}/{subject}", "grant:write", G.take_back, list[Grant]),
    _route(f"POST {_VERSION}/compress", "model:import", compressions.compress, Job,
           compressions.CompressBody, 202),
    _route(f"GET {_VERSION}/report", "model:read", compressions.report, Report),
    _route("POST /api/trials", "model:import", compressions.trial, Job, compressions.TrialBody,
           202),
    _route("GET /api/jobs", "model:read", jobs.list_jobs, list[Job]),
    _route("GET /api/jobs/{job}", "model:read", jobs.show, Job,
           query={"wait": "answer when the job is over, or after so many seconds, at most 30"}),
    _route("DELETE /api/jobs/{job}", "job:cancel", jobs.cancel, Job),
    _route("GET /api/deployments", "deployment:read", D.list_deployments, list[D.DeploymentView]),
    _route("GET /api/deployments/{deployment}", "deployment:read", D.show, D.DeploymentView,
           query={"wait": "answer when it is up or cannot come up, or after so many seconds"}),
    _route("PUT /api/deployments/{deployment}", "deployment:write", D.put, D.DeploymentView,
           Deployment),
    _route("DELETE /api/deployments/{deployment}", "deployment:write", D.remove, D.DeploymentView),
    _route("POST /api/deployments/{deployment}/tune", "deployment:write", engines.tune, Job,
           engines.TuneBody, 202),
    _route("GET /api/engines", "deployment:read", engines.list_engines, list[engines.EngineView]),
    _route("POST /api/engines", "engine:write", engines.build, Job, engines.BuildBody, 202),
    _route("POST /api/engines/pick", "engine:write", engines.pick, Job, engines.PickBody, 202),
    _route("DELETE /api/engines/{engine}", "engine:write", engines.discard,
           engines.EngineRemoved),
    _route("GET /api/desired", "deployment:read", D.export, D.DocumentView),
    _route("PUT /api/desired", "deployment:write", D.apply, D.PlanView, D.DocumentBody),
    _route("POST /api/desired/plan", "deployment:write", D.plan, D.PlanView, D.DocumentBody),
    _route("GET /api/gateways", "deployment:read", gateways.show, gateways.GatewaysView),
    _route("POST /api/gateways/restart", "gateway:restart", gateways.restart,
           gateways.GatewaysView, None, 202),
    _route("GET /api/keys", "key:read", K.list_keys, list[KeyView]),
    _route("POST /api/keys", "key:write", K.create, NewKey, K.KeyBody, 201),
    _route("DELETE /api/keys/{key}", "key:write", K.revoke, K.Revoked),
    _route("GET /api/limits", "limit:read", L.list_limits, list[L.LimitView],
           query={"of": "only of this subject, as team:support"}),
    _route("PUT /api/limits", "limit:write", L.set_limits, list[L.LimitView], L.LimitsBody),
    _route("DELETE /api/limits", "limit:write", L.remove_limits, list[L.LimitView],
           query={"of": "whose, as team:support", "measure": "only of this measure",
                  "per": "only of this window"}),
    _route("GET /api/usage", "usage:read", R.usage, R.UsageView,
           query={"since": "only from this UTC day on, as 2026-01-31"}),
    _route("GET /api/audit", "audit:read", R.audit, R.AuditView, query=_PAGE),
)
# fmt: on


def find(method: str, path: str) -> tuple[Route, dict[str, str]]:
    """Return the route of a request and its parameters."""
    allowed: list[str] = []
    for route in ROUTES:
        params = route.match(path)
        if params is None:
            continue
        if route.method == method:
            return route, params
        allowed.append(route.method)
    if allowed:
        raise WrongMethod(
            "invalid.method", f"{path:.100} takes {', '.join(allowed)}, not {method:.20}"
        )
    raise Missing("missing.route", f"there is no {path!r:.120}: see /api/openapi.json")
