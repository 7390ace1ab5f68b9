"""Control's reports: what it alone knows as numbers, and the house's metrics to a collector."""

import asyncio

from freehold.control.control import Control
from freehold.control.gauges import show
from freehold.gateway.telemetry import Telemetry
from freehold.record.meter import counted_since, gather

SHOW_EVERY = 1.0


async def report(control: Control, telemetry: Telemetry) -> None:
    """Run for the life of control."""
    sending = asyncio.create_task(_send(control, telemetry))
    try:
        while True:
            telemetry.show(control.publisher.snapshot.revision)
            show(control, telemetry.meter)
            await asyncio.sleep(SHOW_EVERY)
    finally:
        sending.cancel()
        await asyncio.wait((sending,))


async def _send(control: Control, telemetry: Telemetry) -> None:
    """Send the metrics of all processes; one sender, or the collector would add them up twice."""
    collector, interval = telemetry.collector, control.settings.telemetry.metrics_interval
    if collector is None or not interval:
        return
    directory = control.home.run / "metrics"
    while True:
        await asyncio.sleep(interval)
        found = await asyncio.to_thread(gather, directory)
        since = counted_since(directory)
        await asyncio.to_thread(collector.send_metrics, found, since, control.clock())
