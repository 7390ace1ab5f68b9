"""What somebody asks of a compression, and what the hardware makes of it. Pure."""

from typing import Annotated

import msgspec

from freehold.models.manifest import Manifest, memory_needed

LOSS = 0.01
"""What is allowed where nothing is said."""
MOST_LOSS = 0.05
"""What is allowed at most where the hardware leaves no choice and nothing is said."""
ROOM = 0.7
"""Share of the machine's memory that a replica may take."""
CONTEXT, SLOTS = 4096, 4

Loss = Annotated[float, msgspec.Meta(gt=0, le=1)]
Share = Annotated[float, msgspec.Meta(gt=0, lt=1)]


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``max_loss`` is a share (0.01 is 1 %); ``target_size`` is a share of the version's bytes.

    ``compressor`` names the plugin that does it; the first that takes the format where none is.

    ``calibration`` is UTF-8 text and ``tasks`` JSON lines, both whole. ``promote`` says whether
    a version that passes the gate becomes production.
    """

    max_loss: Loss | None = None
    target_size: Share | None = None
    calibration: str | None = None
    tasks: str | None = None
    promote: bool = True
    compressor: str | None = None


class Hardware(msgspec.Struct, frozen=True, kw_only=True):
    """What there is: bytes of memory, physical cores."""

    memory: int
    cores: int


class Aim(msgspec.Struct, frozen=True, kw_only=True):
    """What is aimed at: a loss, perhaps a size in bytes, and why, for the report."""

    loss: float
    target: int | None
    why: str


def aim(request: Request, manifest: Manifest, size: int, hardware: Hardware) -> Aim:
    """Return what to aim at for a file of ``size`` bytes on this hardware."""
    if request.target_size is not None:
        target = int(size * request.target_size)
        loss = request.max_loss or MOST_LOSS
        return Aim(loss=loss, target=target, why=f"asked for {request.target_size:.0%} of the size")
    if request.max_loss is not None:
        return Aim(loss=request.max_loss, target=None, why="asked for a loss")
    room = int(hardware.memory * ROOM)
    besides = memory_needed(manifest, 0, CONTEXT, SLOTS)
    # About 6 bits a weight is what a loss of one per cent usually takes.
    usual = int(manifest.parameters * 6.6 / 8)
    machine = f"{hardware.memory / 1e9:.0f} GB of memory, {hardware.cores} cores"
    if besides + usual <= room:
        why = f"{machine}: there is room for the smallest file within {LOSS:.0%}"
        return Aim(loss=LOSS, target=None, why=why)
    target = max(room - besides, int(manifest.parameters * 2.7 / 8))
    why = f"{machine}: the file must be within {target / 1e9:.2f} GB to run"
    return Aim(loss=MOST_LOSS, target=target, why=why)
