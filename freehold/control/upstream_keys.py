"""The keys that endpoints want, read from where references point and kept until that changes."""

from freehold.errors import Missing
from freehold.secret import resolve_secret, secret_file

Stamp = tuple[int, int, int]


class UpstreamKeys:
    """Reads a key once; a file again when it was changed. Routes are made ten times a second."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Stamp, str]] = {}

    def resolve(self, reference: str) -> str:
        """Return the key behind a reference; ``Missing`` says what is wrong with it."""
        path = secret_file(reference)
        if path is None:
            return _checked(reference, resolve_secret(reference))
        try:
            status = path.stat()
        except (OSError, ValueError) as error:
            raise Missing("missing.secret", f"cannot read {reference[:200]!r}: {error}") from error
        stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        known = self._known.get(reference)
        if known is None or known[0] != stamp:
            known = self._known[reference] = (stamp, resolve_secret(reference))
        return _checked(reference, known[1])


def _checked(reference: str, key: str) -> str:
    if not key or not key.isascii() or not key.isprintable():
        raise Missing(
            "missing.secret", f"{reference[:200]!r} holds no key: one line of ASCII is wanted"
        )
    return key
