"""Deployments: what shall run, what does run, and the document that holds all of it."""

import asyncio
import time
from collections.abc import Iterable

import msgspec

from freehold.control.absent import absent
from freehold.control.control import Control
from freehold.control.deployments import Change, read_document, write_document
from freehold.control.feasible import check_deployment
from freehold.control.jobs import Job
from freehold.control.outcomes import plain
from freehold.control.publish import serving
from freehold.errors import Invalid, Missing
from freehold.gateway.admin.ask import Ask, Body
from freehold.models.catalog import read_catalog
from freehold.models.deployment import Deployment
from freehold.policy.permissions import permit
from freehold.runtime.builds import WHEEL

LONGEST_WAIT = 30.0


class ReplicaView(msgspec.Struct, frozen=True, kw_only=True):
    """One replica. ``bytes`` is what it is expected to take, ``resident`` what it does.

    ``circuit`` is closed, open (it fails: asked last), half-open (on trial) or busy;
    ``failing`` says that it did not answer lately. ``endpoint`` is the URL of what others run.
    """

    id: str
    state: str
    since: float
    version: int | None
    build: str
    pid: int | None
    bytes: int
    resident: int
    inflight: int
    used: float
    failures: int
    circuit: str
    reason: str | None
    failing: bool = False
    endpoint: str | None = None


class DeploymentView(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment as it shall be and as it is.

    ``host`` is the deployment whose replicas serve it: an adapter is served by its base's.
    ``cache_type`` and ``draft`` (a digest) are how its engine is launched, whoever said so.
    """

    name: str
    state: str
    reason: str | None
    progress: float
    model: str | None
    version: int | None
    digest: str | None
    place: str
    context: int | None
    desired: Deployment
    replicas: list[ReplicaView]
    host: str | None = None
    cache_type: str | None = None
    draft: str | None = None


class DocumentView(msgspec.Struct, frozen=True, kw_only=True):
    """The whole desired state as TOML."""

    document: str


class DocumentBody(Body, frozen=True):
    """A whole desired state as TOML."""

    document: str


class PlanView(msgspec.Struct, frozen=True, kw_only=True):
    """What applying a document does, or has done; imports go on as jobs."""

    changes: list[Change]
    jobs: list[Job] = []


async def list_deployments(_ask: Ask, control: Control) -> list[DeploymentView]:
    """List deployments."""
    return [view(deployment, control) for deployment in control.deployments.all()]


async def show(ask: Ask, control: Control) -> DeploymentView:
    """Show one deployment; with ``wait``, once it is up or cannot come up."""
    patience = ask.number("wait", 0.0, 0.0, LONGEST_WAIT)
    if patience:
        await control.until_up(ask.params["deployment"], patience)
    return view(_find(ask.params["deployment"], control), control)


async def put(ask: Ask, control: Control) -> DeploymentView:
    """Create a deployment, or replace what it shall be."""
    deployment = ask.read(Deployment)
    if deployment.name != ask.params["deployment"]:
        raise Invalid(
            "invalid.deployment", "the name in the body is not the one in the path", param="name"
        )
    _permit_secrets([deployment], ask, control)
    names = {deployment.name, *(each.name for each in control.deployments.all())}
    settings = control.settings.runtime
    try:
        check_deployment(deployment, control.registry, settings, names, control.builds)
    except Missing as error:
        if error.code != "missing.model":
            raise
        raise absent(
            str(deployment.model).partition(":")[0],
            control.registry.names(),
            read_catalog(control.settings.sources.catalog),
        ) from error
    await asyncio.to_thread(control.papers.check_deploying, deployment.model)
    control.deployments.put(deployment, control.clock(), ask.principal.name)
    await control.changed()
    return view(deployment, control)


async def remove(ask: Ask, control: Control) -> DeploymentView:
    """Remove a deployment; its replicas finish what they are doing."""
    shown = view(_find(ask.params["deployment"], control), control)
    control.deployments.remove(shown.name)
    await control.changed()
    return msgspec.structs.replace(shown, state="removed")


async def export(_ask: Ask, control: Control) -> DocumentView:
    """Return the whole desired state; never secrets."""
    return DocumentView(document=write_document(control.document()))


async def plan(ask: Ask, control: Control) -> PlanView:
    """Say what applying a document would change; changes nothing."""
    document = await asyncio.to_thread(read_document, ask.read(DocumentBody).document)
    return PlanView(changes=control.changes(document))


async def apply(ask: Ask, control: Control) -> PlanView:
    """Make the desired state that of a document."""
    document = await asyncio.to_thread(read_document, ask.read(DocumentBody).document)
    _permit_secrets(document.deployments, ask, control)
    changes = control.changes(document)
    jobs = control.apply(document, ask.principal.name)
    if document.limits is not None:
        await control.limits_changed()
    await control.changed()
    return PlanView(changes=changes, jobs=jobs)


def _permit_secrets(wanted: Iterable[Deployment], ask: Ask, control: Control) -> None:
    """Let only those who may have everything send what lies in files of this machine elsewhere."""
    now = {deployment.name: _secrets(deployment) for deployment in control.deployments.all()}
    for deployment in wanted:
        named = _secrets(deployment)
        if any(named[1:]) and named != now.get(deployment.name):
            permit(ask.principal, "secret:refer")


def _secrets(deployment: Deployment) -> tuple[object, ...]:
    return (
        deployment.urls,
        deployment.upstream_key,
        deployment.upstream_certificate,
        deployment.upstream_certificate_key,
    )


def view(deployment: Deployment, control: Control) -> DeploymentView:
    """Return a deployment with its replicas."""
    route = control.routes()[deployment.name]
    plan = next(p for p in control.deployments.plans() if p.deployment.name == deployment.name)
    load = control.publisher.load(control.gateways.names)
    return DeploymentView(
        name=deployment.name,
        state=route.state if control.serving or route.state == "missing" else "stopped",
        reason=route.reason,
        progress=route.progress,
        model=route.model,
        version=route.version,
        digest=route.digest,
        place=route.place,
        context=route.context,
        desired=deployment,
        replicas=[
            ReplicaView(
                id=replica.id,
                state=replica.state,
                since=_wall(replica.since),
                # A guest is served by what carries its adapter; that has a version of its own.
                version=route.version if plan.guest else replica.launch.version,
                build=replica.launch.native.build if replica.launch.native else WHEEL,
                pid=replica.pid,
                bytes=replica.launch.bytes,
                resident=control.pool.resident(replica),
                inflight=load.inflight.get(replica.id, 0),
                used=_wall(replica.used),
                failures=replica.failures,
                circuit=control.circuit(replica),
                reason=replica.reason,
                failing=control.is_failing(replica),
                endpoint=plain(replica.url or "") if deployment.urls else None,
            )
            for replica in serving(plan, control.pool)
        ],
        host=plan.host,
        cache_type=(plan.launch.cache_type or None) if plan.launch else None,
        draft=plan.launch.draft if plan.launch else None,
    )


def _wall(moment: float) -> float:
    """Return a monotonic time as epoch seconds; 0 stays never."""
    return moment and time.time() - (time.monotonic() - moment)


def _find(name: str, control: Control) -> Deployment:
    found = next((each for each in control.deployments.all() if each.name == name), None)
    if found is None:
        raise Missing("missing.deployment", f"no deployment {name!r:.80}: see freehold status")
    return found
