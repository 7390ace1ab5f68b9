"""The report of a compression, and the gate it has to pass. Pure."""

import msgspec

from freehold.models.compress.order import Measured
from freehold.models.intervals import Interval

METRICS = {
    "kl": "divergence",
    "cosine": "distance of embeddings",
    "score": "difference of scores",
}


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One set of checks, asked of both versions. ``change`` is after minus before, paired."""

    name: str
    cases: int
    before: Interval
    after: Interval
    change: Interval
    verdict: str


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """How a version runs here: tokens a second, and resident bytes of its engine."""

    read: float
    write: float
    memory: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of one compression.

    ``launch`` is how the version is launched where nobody says otherwise, ``speed_launched`` how it
    runs so; ``tried`` tells what was measured to choose that.
    """

    model: str
    parent: int
    parent_digest: str
    version: int
    digest: str
    made: float
    limit: float
    target: int | None
    chosen: str
    calibration: str
    compressor: str = "native"
    method: str = ""
    measured: Measured
    tasks: tuple[Task, ...] = ()
    speed_before: Speed | None = None
    speed_after: Speed | None = None
    speed_launched: Speed | None = None
    launch: dict[str, str] = {}
    tried: tuple[str, ...] = ()
    promoted: bool = False
    reasons: tuple[str, ...] = ()


def quality(document: str | None) -> dict[str, float] | None:
    """Return the few numbers of a stored report that are shown with a version."""
    if document is None:
        return None
    report = msgspec.json.decode(document, type=Report)
    m = report.measured
    found = {"loss": m.loss.mean, "limit": report.limit, "size": m.bytes_after / m.bytes_before}
    if m.perplexity is not None:
        found["perplexity"] = m.perplexity.mean
    return found | {f"tasks.{task.name}": task.change.mean for task in report.tasks}


class Gate(msgspec.Struct, frozen=True):
    """Whether a compression may be promoted, and why."""

    passed: bool
    reasons: tuple[str, ...]


def gate(
    measured: Measured, limit: float, tasks: tuple[Task, ...], target: int | None = None
) -> Gate:
    """Hold what was measured against the loss that was agreed to.

    The upper end of the 95 % interval of the divergence must be within it, and the rise of
    perplexity must not be proven to be over it. A set of checks stands in the way when it got
    worse beyond doubt by more than the limit; a set that is too small to say is named.
    """
    reasons = []
    passed = True
    if target is not None and measured.bytes_after > target:
        passed = False
        reasons.append(
            f"the smallest file there is has {measured.bytes_after:,} bytes, over {target:,}"
        )
    what = METRICS[measured.metric]
    passed &= (within := measured.loss.high <= limit)
    reasons.append(
        f"{what} {measured.loss.mean:.4f} (at most {measured.loss.high:.4f}) is "
        f"{'within' if within else 'over'} {limit:.4f}"
    )
    if measured.perplexity is not None:
        rise = measured.perplexity
        if rise.low > limit:
            passed = False
        reasons.append(
            f"perplexity changed by {rise.mean:+.2%} ({rise.low:+.2%} to {rise.high:+.2%})"
        )
    for task in tasks:
        change = f"{task.name}: {task.change.mean:+.1%} of {task.cases} checks"
        if task.change.high < -limit:
            passed = False
            reasons.append(f"{change}, worse beyond doubt")
        else:
            reasons.append(f"{change}, {task.verdict}")
    return Gate(passed, tuple(reasons))
