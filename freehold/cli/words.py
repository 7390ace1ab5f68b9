"""Numbers and times as people read them."""

import time

UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def size(count: int) -> str:
    """Return bytes as people read them."""
    for unit, name in UNITS:
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} B"


def big(count: int) -> str:
    """Return a number of parameters as people read it."""
    for unit, name in ((10**9, "B"), (10**6, "M")):
        if count >= unit:
            return f"{count / unit:.1f}{name}"
    return str(count)


def moment(at: float | None) -> str | None:
    """Return a time of UTC, given in epoch seconds; None where there is none."""
    return None if at is None else time.strftime("%Y-%m-%d %H:%M", time.gmtime(at))


def counted(count: int, noun: str) -> str:
    """Return ``1 check`` or ``3 checks``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def plain(text: str, kept: str = "\n\t") -> str:
    """Return somebody's text such that a terminal shows it and obeys nothing in it."""
    return "".join(
        each if each.isprintable() or each in kept else f"\\x{ord(each):02x}" for each in text
    )
