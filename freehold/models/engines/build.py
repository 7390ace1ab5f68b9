"""Compiling llama.cpp's server for the processor, and the graphics card, of this machine.

The folder of a build stays until it is done, so one that was stopped or killed goes on with what is
compiled already.
"""

import os
import re
import selectors
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

import msgspec

from freehold.errors import Missing, Unavailable
from freehold.models.child import WATCH, below
from freehold.models.engines import hardware
from freehold.models.engines.hardware import Backend, Find, Hardware
from freehold.models.source import Progress
from freehold.runtime import process
from freehold.settings import environment

SERVER = "llama-server"
OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=OFF", "-DGGML_NATIVE=ON",
    "-DGGML_CCACHE=OFF", "-DLLAMA_OPENSSL=OFF", "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_APP=OFF", "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF", "-DLLAMA_BUILD_TOOLS=ON", "-DLLAMA_BUILD_SERVER=ON",
)  # fmt: skip
"""One file without libraries of its own, for this very processor, that fetches nothing."""
_STEP = re.compile(r"^\[(\d+)/(\d+)\]")
_PERCENT = re.compile(r"^\[ *(\d+)%\]")
_WRONG = re.compile(r"\berror\b[: ]|\bCMake Error\b|\bundefined reference\b", re.IGNORECASE)
_LAST = 12


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """What a build is made with."""

    cmake: str
    generator: str
    compiler: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is built: for which backend, with which options of its own, told what beside them."""

    backend: Backend
    options: tuple[str, ...] = ()
    surroundings: Mapping[str, str] = {}
    advice: str = ""


def plan(wanted: str, found: Hardware, which: Find = shutil.which) -> Plan:
    """Return what to build on this hardware; ``wanted`` is a backend, or ``auto``."""
    chosen = hardware.choose(wanted, found, which)
    compiler = hardware.find(chosen.backend, which) or ""
    return Plan(
        backend=chosen.backend,
        options=hardware.options(chosen.backend, found, compiler),
        surroundings=hardware.surroundings(chosen.backend, compiler),
        advice=chosen.advice,
    )


def find_tools(which: Find = shutil.which) -> Tools:
    """Return the tools of this machine; ``Missing`` says what to install."""
    compiler = which("c++") or which("g++") or which("clang++")
    cmake, ninja, make = which("cmake"), which("ninja"), which("make")
    lacks = [
        what
        for found, what in (
            (compiler, "a C++ compiler (g++ or clang++)"),
            (cmake, "cmake"),
            (ninja or make, "ninja or make"),
        )
        if not found
    ]
    if lacks or compiler is None or cmake is None:
        raise Missing(
            "missing.compiler",
            f"cannot build here: {', '.join(lacks)} is missing. On Debian: apt-get install g++ "
            "cmake ninja-build; or build nothing and keep the wheel",
        )
    return Tools(cmake=cmake, generator="Ninja" if ninja else "Unix Makefiles", compiler=compiler)


def compile_server(
    root: Path, work: Path, tools: Tools, plan: Plan, jobs: int, progress: Progress
) -> Path:
    """Compile the server in ``work`` and return where it lies; goes on where it was stopped."""
    work.mkdir(parents=True, exist_ok=True, mode=0o700)
    for left in process.owned_by(work):  # of a killed one: two would write the same files
        process.send(left, signal.SIGKILL)
    configure = [
        tools.cmake, "-S", str(root), "-B", str(work), "-G", tools.generator, *OPTIONS,
        f"-DCMAKE_CXX_COMPILER={tools.compiler}", *plan.options,
    ]  # fmt: skip
    # What was looked for and not found may be there now: found again, objects stay.
    (work / "CMakeCache.txt").unlink(missing_ok=True)
    progress("configure", 0, 0)
    _run(configure, work, plan.surroundings, lambda _line: progress("configure", 0, 0))
    steps = _Steps(progress)
    build = [tools.cmake, "--build", str(work), "--target", SERVER, "--parallel", str(jobs)]
    _run(build, work, plan.surroundings, steps.tell)
    binary = work / "bin" / SERVER
    if not binary.is_file():
        raise Unavailable("unavailable.build", f"the compiler ended without {binary.name}")
    return binary


def version_of(binary: Path) -> str:
    """Return what a server says of its version; ``Unavailable`` when it does not run here."""
    try:
        ran = subprocess.run(
            [str(binary), "--version"], capture_output=True, timeout=60, check=False,
            env={k: v for k, v in environment().items() if not k.startswith(("LLAMA_", "GGML_"))},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable("unavailable.engine", f"{binary} does not run here: {error}") from error
    said = (ran.stdout + ran.stderr).decode("utf-8", "replace")
    found = re.search(r"version: (.+)", said)
    if ran.returncode or found is None:
        raise Unavailable(
            "unavailable.engine",
            f"{binary} is no llama.cpp server, or does not run here: {said[-200:].strip()}",
        )
    return found[1].strip()[:100]


def compiler_version(tools: Tools) -> str:
    """Return the first line that the compiler says of itself."""
    ran = subprocess.run([tools.compiler, "--version"], capture_output=True, text=True, check=False)
    return ran.stdout.partition("\n")[0][:100]


class _Steps:
    """Reads how far a compilation is, and says it again where nothing new is told."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._done, self._total = 0, 0

    def tell(self, line: str) -> None:
        if step := _STEP.match(line):
            self._done, self._total = int(step[1]), int(step[2])
        elif percent := _PERCENT.match(line):
            self._done, self._total = int(percent[1]), 100
        self._progress("compile", self._done, self._total)


def _said(stdout: IO[bytes]) -> Iterator[str]:
    """Yield what a tool says line by line, and nothing now and then while it is silent."""
    buffer = b""
    with selectors.DefaultSelector() as waiting:
        waiting.register(stdout, selectors.EVENT_READ)
        while True:
            if not waiting.select(WATCH):
                yield ""
                continue
            piece = os.read(stdout.fileno(), 1 << 16)
            *whole, buffer = (buffer + piece).split(b"\n")
            yield from (line.decode("utf-8", "replace") for line in whole)
            if not piece:
                yield buffer.decode("utf-8", "replace")
                return


def _run(
    argv: list[str], work: Path, surroundings: Mapping[str, str], tell: Callable[[str], None]
) -> None:
    """Run a tool below everything else on this machine; what ``tell`` raises ends it.

    It is asked with nothing, too, while the tool is silent: one file may take minutes.
    """
    child = subprocess.Popen(
        below(argv),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
        env={**environment(), **surroundings, **process.mark(work), "NINJA_STATUS": "[%f/%t] "},
    )  # fmt: skip
    last: list[str] = []
    wrong: list[str] = []
    assert child.stdout is not None
    with child, child.stdout:
        try:
            for line in _said(child.stdout):
                last = [*last, line.rstrip()][-_LAST:] if line else last
                if _WRONG.search(line) and len(wrong) < _LAST:
                    wrong.append(line.strip())
                tell(line)
        except BaseException:
            while left := process.owned_by(work):  # compilers start compilers
                for each in left:
                    process.send(each, signal.SIGKILL)
            raise
    if child.returncode != 0:
        # Other compilers end beside the one that failed: the last lines may be of those.
        said = "; ".join(wrong)[:600] or "; ".join(line for line in last if line)[-600:]
        raise Unavailable("unavailable.build", f"{Path(argv[0]).name} failed: {said}")
