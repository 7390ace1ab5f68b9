"""The state of the whole house in one answer."""

import os

import msgspec

from freehold import __version__
from freehold.control.control import Control
from freehold.control.jobs import Job
from freehold.gateway.admin.ask import Ask
from freehold.gateway.admin.deployments import DeploymentView, view
from freehold.gateway.admin.gateways import GatewayView, views
from freehold.models.upkeep import Storage
from freehold.runtime.process import resident_of


class MemoryView(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that engines may use, are expected to use, and use."""

    budget: int
    planned: int
    resident: int


class StatusView(msgspec.Struct, frozen=True, kw_only=True):
    """What runs."""

    version: str
    home: str
    url: str
    ready: bool
    revision: int
    control_pid: int
    control_resident: int
    gateways: list[GatewayView]
    memory: MemoryView
    deployments: list[DeploymentView]
    jobs: list[Job]
    registry: Storage | None


async def status(_ask: Ask, control: Control) -> StatusView:
    """Return deployments, replicas, memory and load."""
    deployments = [view(deployment, control) for deployment in control.deployments.all()]
    replicas = list(control.pool.replicas.values())
    recorded = await control.journal.is_writable()
    return StatusView(
        version=__version__,
        home=str(control.home.root),
        url=control.public_url,
        ready=control.serving and control.publisher.snapshot.ready and recorded,
        revision=control.publisher.snapshot.revision,
        control_pid=os.getpid(),
        control_resident=resident_of(os.getpid()),
        gateways=views(control),
        memory=MemoryView(
            budget=control.pool.room,
            planned=sum(each.launch.bytes for each in replicas if each.pid is not None),
            resident=sum(control.pool.resident(each) for each in replicas),
        ),
        deployments=deployments,
        jobs=[job for job in control.jobs.all() if job.state == "running"],
        registry=control.stock,
    )
