"""``compressor.native``: GGUF, each tensor as the type that measurement chose for it."""

from freehold.errors import Invalid
from freehold.models.compress import native
from freehold.models.compress.compressor import Commission, Made
from freehold.models.compress.request import Request
from freehold.models.registry import Version
from freehold.models.source import Progress
from freehold.settings import Compress


class Native:
    """Ours: see decision 0016."""

    formats = ("gguf",)

    def __init__(self, settings: Compress) -> None:
        """It has no settings."""

    def check(self, version: Version, request: Request) -> None:
        """Refuse what it cannot do, and tasks that nobody could answer."""
        name, task = f"{version.row.model}:{version.row.number}", version.manifest.task
        if version.row.format != "gguf":
            raise Invalid("invalid.format", f"{name} is {version.row.format}, not gguf")
        if version.manifest.adapter is not None:
            raise Invalid("invalid.task", f"{name} is an adapter: compress its base instead")
        if request.tasks is not None and task in ("embedding", "rerank"):
            raise Invalid(
                "invalid.tests",
                f"{name} does not write: leave the tasks out, what it finds is measured",
            )

    def compress(self, commission: Commission, progress: Progress) -> Made:
        """Do it; blocks for minutes."""
        return native.compress(commission, progress)
