"""What control alone knows of the house, as numbers: replicas, memory, readiness."""

from collections import Counter
from typing import get_args

from freehold.control.control import Control
from freehold.record.families import (
    CHECKED,
    DAMAGED,
    LOGICAL,
    MEMORY_BUDGET,
    MEMORY_PLANNED,
    MEMORY_RESIDENT,
    READY,
    REPLICA_FAILURES,
    REPLICAS,
    STORED,
    Family,
)
from freehold.record.meter import Labels, Meter
from freehold.runtime.replica import State


def show(control: Control, meter: Meter) -> None:
    """Bring the numbers up to the present; of deployments that are gone none is left."""
    replicas: Counter[Labels] = Counter()
    planned: Counter[Labels] = Counter()
    resident: Counter[Labels] = Counter()
    failures: dict[Labels, int] = {}
    for deployment in control.publisher.snapshot.routes:
        replicas.update({(deployment, state): 0 for state in get_args(State)})
        planned[deployment,] = resident[deployment,] = failures[deployment,] = 0
    for replica in control.pool.replicas.values():
        name = replica.launch.deployment
        replicas[name, replica.state] += 1
        planned[name,] += replica.launch.bytes if replica.pid is not None else 0
        resident[name,] += control.pool.resident(replica)
        failures[name,] = max(failures.get((name,), 0), replica.failures)
    _put_all(meter, REPLICAS, replicas)
    _put_all(meter, MEMORY_PLANNED, planned)
    _put_all(meter, MEMORY_RESIDENT, resident)
    _put_all(meter, REPLICA_FAILURES, failures)
    meter.put(MEMORY_BUDGET, (), control.pool.room)
    if (stock := control.stock) is not None:
        meter.put(STORED, (), stock.stored)
        meter.put(LOGICAL, (), stock.logical)
        meter.put(DAMAGED, (), len(stock.damaged))
        if stock.oldest_check is not None:
            meter.put(CHECKED, (), stock.oldest_check)
    meter.put(READY, (), float(control.publisher.snapshot.ready))


def _put_all(meter: Meter, family: Family, values: dict[Labels, int]) -> None:
    meter.keep_only(family, set(values))
    for labels, value in values.items():
        meter.put(family, labels, value)
