"""Secrets by reference: a file or a variable of the environment, never as they are."""

import os
import re
import stat
from pathlib import Path

from freehold.errors import Invalid, Missing
from freehold.settings import environment

SECRET_BYTES = 64 * 1024


def resolve_secret(reference: str) -> str:
    """Return the secret that ``file:PATH`` or ``env:NAME`` points at; never a literal one."""
    scheme, _, rest = reference.partition(":")
    if scheme == "env":
        found = environment().get(rest)
        if not found:
            raise Missing("missing.secret", f"the environment variable {rest} is not set")
        return found
    path = secret_file(reference)
    if path is not None:
        try:
            return _read_little(path).decode().strip()
        except (OSError, ValueError) as error:
            text = f"cannot read the secret file {rest[:200]!r}: {error}"
            raise Missing("missing.secret", text) from error
    raise Invalid(
        "invalid.secret", "a secret is given by reference: file:PATH or env:NAME, never as it is"
    )


def secret_file(reference: str) -> Path | None:
    """Return the file that ``file:PATH`` means, None for another kind of reference."""
    scheme, _, rest = reference.partition(":")
    if scheme != "file":
        return None
    try:
        return Path(rest).expanduser()
    except RuntimeError as error:  # ~NAME of nobody
        raise Missing("missing.secret", f"cannot read the secret file: {error}") from error


def check_secret_reference(reference: str) -> None:
    """Raise ``Invalid`` unless ``reference`` has the form of a reference; resolves nothing."""
    if not re.fullmatch(r"(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)", reference):
        raise Invalid(
            "invalid.secret",
            "a secret is given by reference: file:PATH or env:NAME, never as it is",
        )


def _read_little(path: Path) -> bytes:
    """Read a regular, small file: a pipe would wait for ever, a device never end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is no regular file")
        data = file.read(SECRET_BYTES + 1)
    if len(data) > SECRET_BYTES:
        raise ValueError(f"it is over {SECRET_BYTES} bytes")
    return data
