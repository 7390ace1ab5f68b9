"""What a scan found: one thing in one file, and who says so."""

from collections.abc import Sequence

import msgspec


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One reason not to trust a file. ``rule`` is stable and dotted: ``executes.pickle``.

    ``by`` is who says so: freehold, modelaudit, fickling, clamav or yara.
    """

    rule: str
    file: str
    says: str
    by: str = "freehold"


def encode(findings: Sequence[Finding]) -> str:
    """Return findings as they are stored."""
    return msgspec.json.encode(findings).decode()


def decode(text: str) -> tuple[Finding, ...]:
    """Return stored findings."""
    return msgspec.json.decode(text, type=tuple[Finding, ...])


def unknown_in(found: Sequence[Finding], known: Sequence[Finding]) -> list[Finding]:
    """Return the findings that are not among those that were known. What they say may differ."""
    seen = {(each.rule, each.file, each.by) for each in known}
    return [each for each in found if (each.rule, each.file, each.by) not in seen]
