"""Compressions, their reports, and trials of two versions."""

import msgspec

from freehold.control import compressions
from freehold.control.control import Control
from freehold.control.jobs import Job
from freehold.errors import Missing
from freehold.gateway.admin.ask import Ask, Body, version_number
from freehold.models.compress.report import Report
from freehold.models.compress.request import Loss, Request, Share
from freehold.models.examine import Margin, TrialRequest
from freehold.models.registry import Version
from freehold.models.trial import MARGIN


class CompressBody(Body, frozen=True):
    """How to compress: nothing at all lets the hardware choose.

    ``max_loss`` and ``target_size`` are shares; ``calibration`` is text, ``tasks`` JSON lines;
    ``compressor`` names the plugin that does it.
    """

    max_loss: Loss | None = None
    target_size: Share | None = None
    calibration: str | None = None
    tasks: str | None = None
    promote: bool = True
    compressor: str | None = None


class TrialBody(Body, frozen=True):
    """Which two versions, as ``NAME[:VERSION or ALIAS]``, and with which tests (JSON lines)."""

    a: str
    b: str
    tests: str | None = None
    margin: Margin = MARGIN


async def compress(ask: Ask, control: Control) -> Job:
    """Start compressing a version; the same one under way is joined."""
    body = ask.read(CompressBody)
    request = Request(**msgspec.structs.asdict(body))
    return compressions.start(control, _version(ask, control), request, ask.principal.name)


async def report(ask: Ask, control: Control) -> Report:
    """Show what was measured when a version was compressed."""
    version = _version(ask, control)
    name = f"{version.row.model}:{version.row.number}"
    text = control.registry.report(version.row.model, version.row.number)
    if text is None:
        raise Missing("missing.report", f"{name} was not made by a compression: it has no report")
    return msgspec.json.decode(text, type=Report)


async def trial(ask: Ask, control: Control) -> Job:
    """Start asking two versions the same questions."""
    body = ask.read(TrialBody)
    a, b = (control.registry.resolve(text) for text in (body.a, body.b))
    request = TrialRequest(tests=body.tests, margin=body.margin)
    return compressions.start_trial(control, a, b, request)


def _version(ask: Ask, control: Control) -> Version:
    return control.registry.version(ask.params["model"], version_number(ask.params["version"]))
