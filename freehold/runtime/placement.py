"""Placement: what is loaded where there is room, and what has to go for it. Pure.

Room is one number here, the bytes that all local engines may use together. A replica that shall
load takes free room. An urgent one, which a request or an operator waits for, may also take, in
order of last use, the room of replicas that are ready and run nothing.
"""

from collections.abc import Collection, Mapping, Sequence

import msgspec

from freehold.runtime.replica import Replica, may_load


class Placement(msgspec.Struct, frozen=True):
    """Replica ids to load now, to unload now, and why each of the others has to wait."""

    load: tuple[str, ...] = ()
    unload: tuple[str, ...] = ()
    waiting: Mapping[str, str] = {}


def place(
    replicas: Sequence[Replica],
    wanted: Sequence[str],
    urgent: Collection[str],
    inflight: Mapping[str, int],
    room: int,
    now: float,
) -> Placement:
    """Decide for the ``wanted`` replica ids, first come first served.

    ``inflight`` counts the requests running on a replica; ``room`` is in bytes. What is unloaded
    gives its room back only when it is gone, so its successor loads at a later call.
    """
    known = {replica.id: replica for replica in replicas}
    free = room - sum(_occupied(replica) for replica in replicas)
    load: list[str] = []
    unload: list[str] = []
    waiting: dict[str, str] = {}
    spare = sorted(
        (
            replica
            for replica in replicas
            if replica.state == "ready"
            and replica.launch.bytes > 0
            and replica.id not in urgent
            and not inflight.get(replica.id)
        ),
        key=lambda replica: (replica.used, replica.id),
    )
    leaving = sum(_occupied(replica) for replica in replicas if replica.state == "draining")
    for replica_id in wanted:
        replica = known[replica_id]
        if not may_load(replica, now):
            continue
        need = replica.launch.bytes
        if need > room:
            waiting[replica_id] = (
                f"needs {_gib(need)} GiB of memory and engines may use {_gib(room)} GiB: "
                "choose a smaller model or context, or raise runtime.memory"
            )
        elif need <= 0 or need <= free:  # what others hold is nothing to an endpoint
            load.append(replica_id)
            free -= need
        else:
            while replica_id in urgent and spare and need > free + leaving:
                victim = spare.pop(0)
                unload.append(victim.id)
                leaving += _occupied(victim)
            waiting[replica_id] = "waits for memory that other models hold"
            free -= need  # keeps smaller, later ones from starving it
    return Placement(tuple(load), tuple(unload), waiting)


def _occupied(replica: Replica) -> int:
    holds = replica.state in ("loading", "ready", "draining")
    return replica.launch.bytes if holds else 0


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f}"
