"""Every number a Freehold shows of itself: names, meaning, labels, bounds of buckets.

Names follow OpenMetrics (base units, ``_total`` is added to counters where they are written). Those
that begin with ``gen_ai`` are the metrics of the OpenTelemetry conventions for generative AI in
their Prometheus form; ``convention`` is their name there, ``ATTRIBUTES`` that of their labels.
"""

import hashlib
from types import MappingProxyType
from typing import Literal

import msgspec

Kind = Literal["counter", "gauge", "histogram", "info"]


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """One metric. ``buckets`` are upper bounds, the last one, infinity, is understood.

    Series of the same labels from several processes add up, unless only the ``highest`` counts.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    convention: str = ""
    unit: str = ""
    highest: bool = False

    @property
    def size(self) -> int:
        """How many numbers a series takes: for a histogram its buckets, infinity's and the sum."""
        return len(self.buckets) + 2 if self.kind == "histogram" else 1


# fmt: off
DURATION = (.01, .02, .04, .08, .16, .32, .64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
FIRST_TOKEN = (.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1., 2.5, 5., 7.5, 10.)
PER_TOKEN = (.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1., 2.5)
TOKENS = tuple(4. ** power for power in range(14))
# fmt: on
"""The bounds that the GenAI conventions advise."""
COMMIT = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)

_GEN_AI = (
    "gen_ai_operation_name",
    "gen_ai_provider_name",
    "gen_ai_request_model",
    "gen_ai_response_model",
)
ATTRIBUTES = MappingProxyType(
    {
        "gen_ai_operation_name": "gen_ai.operation.name",
        "gen_ai_provider_name": "gen_ai.provider.name",
        "gen_ai_request_model": "gen_ai.request.model",
        "gen_ai_response_model": "gen_ai.response.model",
        "gen_ai_token_type": "gen_ai.token.type",
        "error_type": "error.type",
    }
)
"""What the conventions call these labels."""


def _counter(name: str, text: str, *labels: str) -> Family:
    return Family(name=name, kind="counter", help=text, labels=labels)


def _gauge(name: str, text: str, *labels: str, unit: str = "", highest: bool = False) -> Family:
    return Family(name=name, kind="gauge", help=text, labels=labels, unit=unit, highest=highest)


def _seconds(name: str, buckets: tuple[float, ...], text: str, *labels: str) -> Family:
    return Family(
        name=name, kind="histogram", help=text, labels=labels, buckets=buckets, unit="seconds"
    )


def _convention(
    name: str, buckets: tuple[float, ...], text: str, *labels: str, unit: str = "seconds"
) -> Family:
    return Family(
        name=name.replace(".", "_") + (f"_{unit}" if unit else ""),
        kind="histogram",
        help=text,
        labels=(*_GEN_AI, *labels),
        buckets=buckets,
        convention=name,
        unit=unit,
    )


BUILD = Family(
    name="freehold_build", kind="info", help="The version that runs.", labels=("version",)
)
UP = _gauge(
    "freehold_process_up", "1 while a process of the house lives, 0 when it should.", "process"
)
RESIDENT = _gauge(
    "freehold_process_resident_bytes",
    "Memory that a process holds.",
    "process",
    unit="bytes",
    highest=True,
)
REVISION = _gauge(
    "freehold_snapshot_revision",
    "Revision of the snapshot: the one in force at control, the one in use at a gateway.",
    "process",
    highest=True,
)
STORED = _gauge("freehold_registry_stored_bytes", "What models take on disk.", unit="bytes")
LOGICAL = _gauge(
    "freehold_registry_logical_bytes",
    "What models would take if versions shared nothing.",
    unit="bytes",
)
DAMAGED = _gauge("freehold_registry_damaged_files", "Files that were found damaged on disk.")
CHECKED = _gauge(
    "freehold_registry_oldest_check_seconds",
    "When the file that was read again longest ago was, in epoch seconds.",
    unit="seconds",
)
READY = _gauge("freehold_ready", "1 once everything that can be up is up.")
OPEN = _gauge("freehold_open_requests", "Requests that were read and not yet answered.")
RUNNING = _gauge("freehold_running_requests", "Requests that engines work on.", "deployment")
REQUESTS = _counter(
    "freehold_requests",
    "Requests that are over, by what was asked and how it ended.",
    "action",
    "deployment",
    "dialect",
    "outcome",
    "status",
)
ERRORS = _counter("freehold_errors", "Errors answered, by their code.", "code")
REQUEST_DURATION = _seconds(
    "freehold_request_duration_seconds",
    DURATION,
    "From the first byte read to the last byte ready, the durable record included.",
    "deployment",
    "dialect",
    "outcome",
)
TIME_TO_FIRST_TOKEN = _seconds(
    "freehold_time_to_first_token_seconds",
    FIRST_TOKEN,
    "From the request read to its first token, of answers that came whole.",
    "deployment",
    "dialect",
)
TIME_PER_OUTPUT_TOKEN = _seconds(
    "freehold_time_per_output_token_seconds",
    PER_TOKEN,
    "Between tokens after the first, of answers that came whole.",
    "deployment",
    "dialect",
)
TOKENS_USED = _counter(
    "freehold_tokens", "Tokens read (input), of which cached, and written.", "deployment", "type"
)
ATTEMPTS = _counter(
    "freehold_attempts",
    "Times an engine was asked, by how that ended.",
    "deployment",
    "outcome",
)
FAILOVERS = _counter(
    "freehold_failovers",
    "Times another replica had to be asked, by the deployment asked last.",
    "deployment",
)
AUDIT_COMMIT = _seconds(
    "freehold_audit_commit_duration_seconds",
    COMMIT,
    "What an answer waits for until its record is on disk.",
)
REPLICAS = _gauge("freehold_replicas", "Replicas by state.", "deployment", "state")
REPLICA_FAILURES = _gauge(
    "freehold_replica_failures",
    "Failures in a row of the replica that does worst.",
    "deployment",
)
MEMORY_BUDGET = _gauge(
    "freehold_memory_budget_bytes", "Memory that all local engines may use.", unit="bytes"
)
MEMORY_PLANNED = _gauge(
    "freehold_memory_planned_bytes",
    "Memory that running engines are expected to use.",
    "deployment",
    unit="bytes",
)
MEMORY_RESIDENT = _gauge(
    "freehold_memory_resident_bytes", "Memory that engines hold.", "deployment", unit="bytes"
)
SERVER_DURATION = _convention(
    "gen_ai.server.request.duration",
    DURATION,
    "Time of a request until its last byte was ready; failed ones name their error.",
    "error_type",
)
SERVER_FIRST_TOKEN = _convention(
    "gen_ai.server.time_to_first_token",
    FIRST_TOKEN,
    "Time until the first token, of answers that came whole.",
)
SERVER_PER_TOKEN = _convention(
    "gen_ai.server.time_per_output_token",
    PER_TOKEN,
    "Time for each token after the first, of answers that came whole.",
)
TOKEN_USAGE = _convention(
    "gen_ai.client.token.usage",
    TOKENS,
    "Tokens of a request, read and written.",
    "gen_ai_token_type",
    unit="",
)

FAMILIES: tuple[Family, ...] = (
    BUILD, UP, RESIDENT, REVISION, READY, OPEN, RUNNING, REQUESTS, ERRORS, REQUEST_DURATION,
    TIME_TO_FIRST_TOKEN, TIME_PER_OUTPUT_TOKEN, TOKENS_USED, ATTEMPTS, FAILOVERS, AUDIT_COMMIT,
    STORED, LOGICAL, DAMAGED, CHECKED,
    REPLICAS, REPLICA_FAILURES, MEMORY_BUDGET, MEMORY_PLANNED, MEMORY_RESIDENT, SERVER_DURATION,
    SERVER_FIRST_TOKEN, SERVER_PER_TOKEN, TOKEN_USAGE,
)  # fmt: skip
BY_NAME = MappingProxyType({family.name: family for family in FAMILIES})
STAMP = int.from_bytes(
    hashlib.sha256(msgspec.json.encode([(f.name, f.kind, f.labels, f.buckets) for f in FAMILIES]))
    .digest()[:7]
)  # fmt: skip
"""Changes with the meaning of stored numbers, so that none is read for another."""
