"""A conversion as a process of its own: an order comes on standard input, lines of JSON go out.

It ends when its parent does: standard input stays open as long as that lives.
"""

import logging
import os
import shutil
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from freehold.errors import FreeholdError
from freehold.models.convert.lora import Base, plan_adapter
from freehold.models.convert.plan import Kind, Plan, plan
from freehold.models.convert.write import write

SPARE = 64 * 1024 * 1024
"""Bytes of the disk that a conversion leaves free."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to convert: a folder with the files of a checkpoint, or of an adapter for ``base``.

    ``licence`` is what the files say themselves: it goes into the new one.
    """

    folder: str
    target: str
    name: str
    kind: Kind | None = None
    base: Base | None = None
    licence: str | None = None


def run(order: Order) -> Mapping[str, object]:
    """Convert, and return what was left out and the type of the matrices."""
    folder, target = Path(order.folder), Path(order.target)
    planned = (
        plan(folder, order.kind, order.name)
        if order.base is None
        else plan_adapter(folder, order.base, order.kind, order.name)
    )
    if order.licence is not None:
        planned.values["general.license"] = order.licence
    _check_room(planned, target)
    write(planned, target, lambda stage, done, of: _tell(stage=stage, done=done, total=of))
    return {"left_out": list(planned.left_out)}


def _check_room(planned: Plan, target: Path) -> None:
    needed = sum(part.bytes for part in planned.parts) + SPARE
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        raise OSError(f"it takes {needed >> 20} MiB of disk, and {free >> 20} are free")


def _tell(**fields: Any) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(fields) + b"\n")
    sys.stdout.buffer.flush()


def _end_with_parent() -> None:
    while os.read(0, 4096):  # past the buffer: its lock would be held when this process ends
        pass
    os._exit(1)


def main() -> None:
    """Read the order, convert, tell how it ended."""
    os.umask(0o077)
    logging.disable(logging.WARNING)  # gguf's: what matters is refused here
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _tell(result=run(order))
    except FreeholdError as error:
        _tell(error={"code": error.code, "message": error.message})
    except OSError as error:
        _tell(error={"code": "unavailable.disk", "message": f"cannot convert: {error}"})


if __name__ == "__main__":
    main()
