"""Everything that can go wrong, as one tree.

::

    FreeholdError
    ├── Refused              the caller may not
    │   ├── Unauthenticated  say who you are
    │   ├── Forbidden        your role does not allow it
    │   └── OverQuota        a limit is reached: ask for less, or later
    │       └── Exhausted    the budget is spent: it must be raised
    ├── Missing              there is no such thing
    ├── Invalid              the request or file is wrong: change it
    │   ├── TooLarge         it is over a limit
    │   ├── TooLate          it came too slowly
    │   ├── OutOfRange       it goes on where nothing ended
    │   ├── WrongMethod      the route takes another HTTP method
    │   └── Conflict         it clashes with what is there
    ├── Unavailable          not now: try again later
    │   ├── NoCapacity       loading, or no room
    │   │   └── Busy         the engine has too much to do
    │   ├── EngineLost       the engine went away
    │   └── TooSlow          a deadline passed
    └── Broken               something stored is damaged: an operator must look
        └── DigestMismatch   the bytes are not those that were promised

A class says what the caller should do, a ``code`` (``missing.model``) says what happened. What a
class means over HTTP is decided in ``gateway/faults.py``, nowhere else.
"""

from typing import ClassVar


class FreeholdError(Exception):
    """Any refusal or failure with a text made for the person who can act on it.

    ``code`` is stable and dotted, ``param`` names the offending field, ``retry_after`` is in
    seconds, ``details`` are small JSON values that belong in the answer (a progress, a limit).
    """

    kind: ClassVar[str] = "error"

    def __init__(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        details: dict[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.details = details or {}


class Refused(FreeholdError):
    """The caller may not do this."""

    kind = "refused"


class Unauthenticated(Refused):
    """No credentials, or none that hold."""

    kind = "unauthenticated"


class Forbidden(Refused):
    """Known, but the role does not allow it."""

    kind = "forbidden"


class OverQuota(Refused):
    """A limit is reached: ask for less, or later."""

    kind = "over_quota"


class Exhausted(OverQuota):
    """A budget is spent, and no time brings it back."""

    kind = "exhausted"


class Missing(FreeholdError):
    """The named thing does not exist."""

    kind = "missing"


class Invalid(FreeholdError):
    """The request, document or file is wrong and stays wrong until it is changed."""

    kind = "invalid"


class TooLarge(Invalid):
    """Over a stated limit."""

    kind = "too_large"


class TooLate(Invalid):
    """It came too slowly."""

    kind = "too_late"


class OutOfRange(Invalid):
    """A range that does not fit what is there."""

    kind = "out_of_range"


class WrongMethod(Invalid):
    """The route exists, but not with this method."""

    kind = "wrong_method"


class Conflict(Invalid):
    """Clashes with the present state."""

    kind = "conflict"


class Unavailable(FreeholdError):
    """Cannot be done now; the same request may succeed later."""

    kind = "unavailable"


class NoCapacity(Unavailable):
    """Loading, queued, or no room for it."""

    kind = "no_capacity"


class Busy(NoCapacity):
    """The engine has too much to do; ``retry_after`` is what it asks for."""

    kind = "busy"


class EngineLost(Unavailable):
    """The engine died or cannot be reached."""

    kind = "engine_lost"


class TooSlow(Unavailable):
    """A deadline passed."""

    kind = "too_slow"


class Broken(FreeholdError):
    """Stored state is damaged."""

    kind = "broken"


class DigestMismatch(Broken):
    """Bytes do not have the digest that was pinned or recorded."""

    kind = "digest_mismatch"
