"""What gateways work from: an immutable snapshot, published by control, also kept on disk.

A gateway that starts or goes on while control is dead uses the file. It holds keyed hashes of keys
and the secrets of running engines, so it is readable by its owner only.
"""

import os
from pathlib import Path

import msgspec

from freehold.errors import Broken


class KeyGrant(msgspec.Struct, frozen=True, kw_only=True):
    """A live key: who it stands for. ``expires`` is in epoch seconds."""

    id: str
    principal: str
    role: str
    expires: float | None = None


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One replica that can be sent requests now.

    ``url`` ends before ``/chat/completions``. ``key`` goes out as a bearer token. ``model`` is
    what the engine calls it. ``streams_only`` says that the engine notices a client that hangs up
    only while it streams, so it is always asked to stream.
    """

    replica: str
    url: str
    key: str | None
    model: str
    streams_only: bool
    slots: int | None = None


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment as gateways see it.

    ``state``: ready, loading, idle (loads on the first request), failed or missing; ``progress``
    is 0 to 1 while loading; ``reason`` says why it is not ready. ``context`` is in tokens.
    """

    deployment: str
    engine: str
    place: str
    task: str
    state: str
    model: str | None = None
    version: int | None = None
    digest: str | None = None
    parameters: int | None = None
    context: int | None = None
    created: int = 0
    progress: float = 0.0
    reason: str | None = None
    fallbacks: tuple[str, ...] = ()
    targets: tuple[Target, ...] = ()


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All a gateway needs. ``keys`` is by keyed hash in hex, ``routes`` by deployment name.

    ``ready`` says that control has come up and every deployment with it, as far as it could.
    """

    revision: int = 0
    ready: bool = False
    keys: dict[str, KeyGrant] = {}
    routes: dict[str, Route] = {}
    control_url: str = ""
    control_secret: str = ""


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Replace the file in one step; mode 0600."""
    partial = path.with_suffix(".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(snapshot))
    partial.replace(path)


def read_snapshot(path: Path) -> Snapshot:
    """Read the file; an empty snapshot when there is none yet."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Snapshot)
    except FileNotFoundError:
        return Snapshot()
    except msgspec.DecodeError as error:
        raise Broken("broken.snapshot", f"{path} is damaged: start control again") from error
