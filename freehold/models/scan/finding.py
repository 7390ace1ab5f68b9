"""What a scan found: one thing in one file, and who says so."""

import msgspec


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One reason not to trust a file. ``rule`` is stable and dotted: ``executes.pickle``.

    ``by`` is who says so: freehold, modelaudit, fickling, clamav or yara.
    """

    rule: str
    file: str
    says: str
    by: str = "freehold"
