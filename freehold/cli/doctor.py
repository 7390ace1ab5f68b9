"""``freehold doctor``: everything that can be checked short of serving."""

import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

import click
import msgspec

from freehold.cli.client import connected
from freehold.cli.command import Options, command
from freehold.cli.deployments import HOPELESS
from freehold.cli.lifecycle import silent
from freehold.cli.output import emit, say, table
from freehold.cli.place import serving_url
from freehold.cli.words import counted, size
from freehold.control.gateways import are_running
from freehold.control.home import Home
from freehold.errors import FreeholdError
from freehold.models.catalog import read_catalog
from freehold.plugins import open_kind
from freehold.runtime.process import machine_memory
from freehold.settings import Settings, read_settings
from freehold.store import versions
from freehold.store.blobs import Blobs
from freehold.store.database import Database

LITTLE_DISK = 2 * 2**30
RECORD_ROOM = 2**20
"""Bytes that must fit: an empty file does on a disk that is full."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing looked at. ``state`` is ok, warning or failed; ``text`` says what to do."""

    check: str
    state: str
    text: str


Check = Callable[[Path, Settings, bool], Iterator[Finding]]


@command()
@click.option("--deep", is_flag=True, help="Also read every stored byte again.")
def doctor(options: Options, deep: bool) -> None:
    """Check the machine, the installation and the home; exit 1 when something is broken."""
    findings: list[Finding] = []
    try:
        settings = read_settings(options.home)
    except FreeholdError as error:
        findings.append(Finding(check="settings", state="failed", text=error.message))
        settings = Settings()
    for check in (_python, _engine, _plugins, _machine, _home, _port, _database, _catalog):
        try:
            findings += check(options.home, settings, deep)
        except (FreeholdError, OSError) as error:
            name = check.__name__.strip("_")
            findings.append(Finding(check=name, state="failed", text=str(error)))
    findings += _serving(options)
    broken = [finding for finding in findings if finding.state == "failed"]
    rows = [(finding.state, finding.check, finding.text) for finding in findings]
    emit(options, {"ok": not broken, "findings": findings}, table(("STATE", "CHECK", ""), rows, ""))
    if broken:
        say(f"freehold: {counted(len(broken), 'check')} failed")
        raise click.exceptions.Exit(1)  # what failed is in the one document already


def _python(_home: Path, _settings: Settings, _deep: bool) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield _ok("python", f"{version} at {sys.executable}")


def _engine(_home: Path, _settings: Settings, _deep: bool) -> Iterator[Finding]:
    # In a child: a processor that the wheel was not built for kills the process that loads it.
    code = "import xllamacpp; print(xllamacpp.__version__)"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    if ran.returncode == 0:
        yield _ok("engine", f"llama.cpp through xllamacpp {ran.stdout.strip()}")
    else:
        why = ran.stderr.strip().rpartition("\n")[2] or f"it died with {ran.returncode}"
        yield _failed("engine", f"llama.cpp cannot be loaded: {why}")


def _plugins(_home: Path, settings: Settings, _deep: bool) -> Iterator[Finding]:
    for kind in ("engine", "source"):
        names = ", ".join(open_kind(kind, settings.plugins))
        yield _ok("plugins", f"{kind}: {names}") if names else _failed("plugins", f"no {kind}")


def _machine(home: Path, settings: Settings, _deep: bool) -> Iterator[Finding]:
    memory = machine_memory()
    budget = settings.runtime.memory or int(memory * settings.runtime.memory_share)
    yield _ok("memory", f"{size(memory)}, engines may use {size(budget)}")
    present = next(folder for folder in (home, *home.parents) if folder.is_dir())
    free = shutil.disk_usage(present).free
    text = f"{size(free)} free at {present}"
    if free < LITTLE_DISK:
        yield Finding(check="disk", state="warning", text=f"{text}: too little for most models")
    else:
        yield _ok("disk", text)


def _home(home: Path, _settings: Settings, _deep: bool) -> Iterator[Finding]:
    if not home.is_dir():
        yield _new_home(home)
        return
    found = Home(home)
    try:
        with TemporaryFile(dir=home) as probe:
            probe.write(bytes(RECORD_ROOM))
            probe.flush()
            os.fsync(probe.fileno())
        yield _ok("home", f"{home} can be written")
    except OSError as error:
        text = f"nothing can be written to {home}, so nothing is answered: {error.strerror}"
        yield _failed("home", text)
    for path in sorted((home, *home.glob("*"), *home.glob("run/*"), *home.glob("audit/*"))):
        if not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) & 0o022:
            yield _failed("home", f"others can write to {path}: chmod go-w {path}")
    for path in (found.admin_key, found.pepper, found.snapshot):
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            yield _failed("secrets", f"others can read {path}: chmod 600 {path}")
    if found.holder() is not None:
        yield _ok("running", f"Freehold runs, process {found.holder()}")
    elif are_running(home):
        yield Finding(
            check="running",
            state="warning",
            text="gateways serve without control: start it with freehold up",
        )


def _new_home(home: Path) -> Finding:
    """Say whether a home could be made: by making, and removing, a folder where it would lie."""
    above = next(place for place in (home, *home.parents) if place.exists())
    try:
        with TemporaryDirectory(dir=above):
            pass
    except OSError as error:
        why = f"{above}: {error.strerror}"
        return _failed("home", f"{home} cannot be made ({why}): name another with --home")
    return _ok("home", f"{home} does not exist yet: freehold up makes it")


def _port(home: Path, settings: Settings, _deep: bool) -> Iterator[Finding]:
    url = serving_url(home)
    if url is not None:
        yield _ok("port", f"{url} is ours")
        return
    where = f"{settings.server.host} port {settings.server.port}"
    family = socket.AF_INET6 if ":" in settings.server.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.server.host, settings.server.port))
        except OSError as error:
            yield _failed("port", f"{where} cannot be had: {error.strerror}")
            return
    yield _ok("port", f"{where} is free")


def _database(home: Path, _settings: Settings, deep: bool) -> Iterator[Finding]:
    found = Home(home) if home.is_dir() else None
    if found is None or not found.database.exists():
        yield _ok("database", "none yet")
        return
    # The schema is brought up to date by who works with it, never under a control that runs.
    database, blobs = Database(found.database, migrate=False), Blobs(found.blobs)
    try:
        yield _ok("database", f"schema {database.schema_version()}")
        with database.reading() as connection:
            used = versions.used_artifacts(connection)
    finally:
        database.close()
    for artifact in used:
        try:
            if deep:
                blobs.verify(artifact.digest)
            elif blobs.size(artifact.digest) != artifact.bytes:
                yield _failed("models", f"sha256:{artifact.digest} has the wrong size")
        except FreeholdError as error:
            yield _failed("models", error.message)
    yield _ok("models", f"{len(used)} files looked at{', every byte' if deep else ''}")


def _serving(options: Options) -> Iterator[Finding]:
    """Say what the Freehold that runs there knows, gateways' circuits included."""
    if options.url is None and Home.reach(options.home) is None:
        return
    try:
        with connected(options) as client:
            found = client.get("/api/status")
    except FreeholdError as error:
        yield _failed("status", error.message)
        return
    for deployment in found["deployments"]:
        why = deployment["reason"] if deployment["state"] in HOPELESS else silent(deployment)
        if why:
            text = f"{deployment['name']}: {why}"
            yield Finding(check="deployments", state="warning", text=text)
    yield _ok("status", "ready" if found["ready"] else "not ready yet")


def _catalog(_home: Path, settings: Settings, _deep: bool) -> Iterator[Finding]:
    yield _ok("catalog", f"{len(read_catalog(settings.sources.catalog))} models")


def _ok(check: str, text: str) -> Finding:
    return Finding(check=check, state="ok", text=text)


def _failed(check: str, text: str) -> Finding:
    return Finding(check=check, state="failed", text=text)
