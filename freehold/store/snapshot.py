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
    team: str | None = None


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """At most ``amount`` of a measure for one subject and window.

    ``scope`` is key, principal, team or deployment, ``name`` which one. ``measure`` is requests,
    tokens_in, tokens_out, tokens, money or concurrency; money is in micro-units of the currency.
    ``window`` is minute, day or month of the UTC calendar, or total: no window, a hard cap.
    """

    scope: str
    name: str
    measure: str
    window: str
    amount: int


class Trust(msgspec.Struct, frozen=True):
    """PEM files by path: the authorities an endpoint is held against, and who we are to it."""

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None


class Deadlines(msgspec.Struct, frozen=True, kw_only=True):
    """How long answers may take, in seconds; see the settings of the same names."""

    connect: float = 3.0
    headers: float = 300.0
    first_token: float = 300.0
    token: float = 60.0
    total: float = 1800.0


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One replica that can be sent requests now.

    ``url`` ends before ``/chat/completions``. ``key`` goes out as a bearer token. ``model`` is
    what the engine calls it. ``streams_only`` says that the engine notices a client that hangs up
    only while it streams, so it is always asked to stream. ``weight`` is how much faster it is
    than one of weight 1. ``continues`` says how it goes on with an answer begun elsewhere:
    ``prefill``, ``final_message``, or not at all. ``sets`` is a JSON object whose fields are set
    in each request, over what the client says: which adapter counts.
    """

    replica: str
    url: str
    key: str | None
    model: str
    streams_only: bool
    slots: int | None = None
    weight: float = 1.0
    trust: Trust | None = None
    continues: str | None = None
    sets: str = ""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment as gateways see it.

    ``state``: ready, loading, idle (loads on the first request), failed or missing; ``progress``
    is 0 to 1 while loading; ``reason`` says why it is not ready. ``context`` is in tokens. Prices
    are in micro-units of the currency for a million tokens; ``slots`` is how many requests all
    targets together answer at once, None when nobody knows.
    ``cache_seconds`` is how long answers are kept, 0 for not at all; ``cache_any`` keeps those of
    calls that are no function of their request too. ``setup`` differs when launch settings do.
    A second replica is asked too when the first has produced nothing for ``hedge_ms`` milliseconds.
    ``adapts`` says that it is its base with an adapter, which changes what is written only.
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
    price_in: int = 0
    price_out: int = 0
    slots: int | None = None
    cache_seconds: float = 0.0
    cache_any: bool = False
    setup: str = ""
    targets: tuple[Target, ...] = ()
    deadlines: Deadlines = Deadlines()
    hedge_ms: int | None = None
    adapts: bool = False


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All a gateway needs. ``keys`` is by keyed hash in hex, ``routes`` by deployment name,
    ``limits`` by ``SCOPE:NAME``.

    ``ready`` says that control has come up and every deployment with it, as far as it could.
    """

    revision: int = 0
    ready: bool = False
    keys: dict[str, KeyGrant] = {}
    routes: dict[str, Route] = {}
    limits: dict[str, tuple[Limit, ...]] = {}
    control_url: str = ""
    control_secret: str = ""


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Replace the file in one step; mode 0600."""
    partial = path.with_name(f"{path.name}.partial")
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
