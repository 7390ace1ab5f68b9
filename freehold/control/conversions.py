"""Conversions as jobs."""

import asyncio

from freehold.control.control import Control
from freehold.control.jobs import Job
from freehold.models.conversion import Kind, check_convertible, convert
from freehold.models.registry import Version
from freehold.models.source import Progress


def start_conversion(control: Control, version: Version, kind: Kind | None, by: str) -> Job:
    """Start making a GGUF version of a safetensors one, or join the same work under way."""
    check_convertible(version, control.workshop)
    loop = asyncio.get_running_loop()

    def work(progress: Progress) -> dict[str, object]:
        made, new = convert(version, kind, control.workshop, progress, control.clock(), by)
        loop.call_soon_threadsafe(control.deployments.forget_plans)
        return {"model": made.row.model, "version": made.row.number, "new": new}

    subject = f"{version.row.model}:{version.row.number}"
    return control.jobs.start("convert", subject, work, same=kind)
