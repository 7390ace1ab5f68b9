"""Conversion of safetensors versions to GGUF ones."""

from freehold.control.control import Control
from freehold.control.conversions import start_conversion
from freehold.control.jobs import Job
from freehold.gateway.admin.ask import Ask, Body, version_number
from freehold.models.conversion import Kind


class ConvertBody(Body, frozen=True):
    """How to convert. ``type`` is what matrices are written as; as they are stored if not given."""

    type: Kind | None = None


async def convert(ask: Ask, control: Control) -> Job:
    """Start making a GGUF version of a safetensors one; the same under way is joined."""
    number = version_number(ask.params["version"])
    version = control.registry.version(ask.params["model"], number)
    return start_conversion(control, version, ask.read(ConvertBody).type, ask.principal.name)
