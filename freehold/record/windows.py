"""The windows of limits: fixed minutes, days and months of the UTC calendar. Pure.

A window has a number, which grows by one with each; ``total`` has one window without an end.
"""

import datetime
import math

WINDOWS = ("minute", "day", "month", "total")
MINUTE, DAY = 60, 86400


def number(window: str, at: float) -> int:
    """Return the number of the window that a moment, in epoch seconds, lies in; at least 1."""
    if window == "minute":
        return max(1, int(at // MINUTE))
    if window == "day":
        return max(1, int(at // DAY))
    if window == "month":
        date = _moment(at)
        return max(1, (date.year - 1970) * 12 + date.month)
    return 1


def ends(window: str, at: float) -> float:
    """Return when the window of a moment ends, in epoch seconds."""
    if window == "minute":
        return (at // MINUTE + 1) * MINUTE
    if window == "day":
        return (at // DAY + 1) * DAY
    if window == "month":
        date = _moment(at)
        year, month = divmod(date.year * 12 + date.month, 12)
        return datetime.datetime(year, month + 1, 1, tzinfo=datetime.UTC).timestamp()
    return math.inf


def period(window: str, count: int) -> str:
    """Return how the records name a window: ``2026-01-31T23:59``, ``2026-01-31``, ``2026-01``."""
    if window == "minute":
        return _moment(count * MINUTE).strftime("%Y-%m-%dT%H:%M")
    if window == "day":
        return _moment(count * DAY).strftime("%Y-%m-%d")
    if window == "month":
        year, month = divmod(count - 1, 12)
        return f"{year + 1970:04}-{month + 1:02}"
    return ""


def moment(at: float) -> str:
    """Return a moment, which a window ends at, as people write it: ``2026-02-01 00:00``."""
    return _moment(at).strftime("%Y-%m-%d %H:%M")


def newest(window: str, stamp: str) -> int:
    """Return the number of the window that a recorded minute or day lies in; 0 for none."""
    if not stamp:
        return 0
    written = datetime.datetime.fromisoformat(stamp).replace(tzinfo=datetime.UTC)
    return number(window, written.timestamp())


def _moment(at: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(at, datetime.UTC)
