"""The process that reads hostile bytes: ``python -m freehold.models.scan.child``, a task on stdin.

It gives up the network and most of its memory and time before it looks at anything.
"""

import contextlib
import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from freehold.models.scan.confined import Said, Task, answer, read_task

_NEW_USER, _NEW_NET = 0x10000000, 0x40000000
_REFUSED = (
    "socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo", "subprocess.Popen",
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn",
)  # fmt: skip
Found = Iterator[tuple[str, int, str, str]]


def confine(task: Task) -> None:
    """Give up what this work does not need. What the kernel does not grant, Python refuses."""
    resource.setrlimit(resource.RLIMIT_AS, (task.memory, task.memory))
    resource.setrlimit(resource.RLIMIT_CPU, (task.seconds, task.seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 20, 64 << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_NEW_NET) != 0:
            libc.unshare(_NEW_USER | _NEW_NET)
        libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS

    def refuse(event: str, _arguments: tuple[Any, ...]) -> None:
        if event in _REFUSED:
            raise PermissionError(f"a scan does not do {event}")

    sys.addaudithook(refuse)


def main() -> None:
    """Do the task and print what was found."""
    task = read_task(sys.stdin.buffer.read())
    out = os.dup(1)
    os.dup2(2, 1)  # what libraries print is no answer
    confine(task)
    acts = {"render": _render, "opinion": _opinion, "yara": _yara}
    try:
        said = Said(found=tuple(acts[task.act](task)))
    except ImportError as error:
        said = Said(missing=str(error.name or error))
    os.write(out, answer(said))


def _render(task: Task) -> Found:
    """Judge templates; render what nothing stands against with conversations of every shape."""
    from jinja2.exceptions import SecurityError

    from freehold.models.scan.conversations import CONVERSATIONS
    from freehold.models.scan.sandbox import render
    from freehold.models.scan.template import METHODS, objections

    for place, text in enumerate(task.texts):
        against = objections(text)
        yield from (("template.code", place, reason, "") for reason in against)
        for values in () if against else CONVERSATIONS:
            try:
                render(text, values)
            except SecurityError as error:
                if any(f"'{method}'" in str(error) for method in METHODS):
                    continue  # it changes a list of its own, which only this sandbox refuses
                yield "template.unsafe", place, f"does what is unsafe when rendered: {error}", ""
                break
            except (MemoryError, OverflowError):
                yield "template.bomb", place, "takes too much memory when rendered", ""
                break
            except RecursionError:
                yield "template.bomb", place, "calls itself without end when rendered", ""
                break
            except Exception:  # noqa: BLE001, S112 - it wants another conversation: not our matter
                continue


def _opinion(task: Task) -> Found:
    """Ask modelaudit and fickling about files."""
    from fickling.fickle import Pickled
    from modelaudit.core import scan_model_directory_or_file

    for place, path in enumerate(_called_as_they_are(task)):
        result = scan_model_directory_or_file(path).model_dump()
        if not result["scanner_names"] or not result["success"] or result["has_errors"]:
            yield "opinion.none", place, "it does not know this kind of file", "modelaudit"
        for issue in result["issues"]:
            severity = str(getattr(issue["severity"], "value", issue["severity"]))
            if severity in ("critical", "warning"):
                yield "opinion.suspicious", place, str(issue["message"])[:300], "modelaudit"
        with Path(path).open("rb") as file:
            try:
                parsed = Pickled.load(file)
            except Exception:  # noqa: BLE001 - it is no pickle
                parsed = None
        if parsed is not None and len(parsed) > 1 and parsed.has_import:
            yield "opinion.suspicious", place, "a pickle that imports is in it", "fickling"


def _called_as_they_are(task: Task) -> Iterator[str]:
    """Yield paths whose last part is a file's own name: stored bytes are named by their digest."""
    for place, (path, name) in enumerate(zip(task.paths, task.names, strict=True)):
        link = Path(str(place), name.rpartition("/")[2])
        link.parent.mkdir()
        link.symlink_to(path)
        yield str(link.absolute())


def _yara(task: Task) -> Found:
    """Hold files against rules, window by window."""
    import mmap

    import yara_x

    from freehold.models.scan.windows import OVERLAP, windows

    compiler = yara_x.Compiler()
    for name in task.rules.split("\n"):
        compiler.add_source(Path(name).read_text("utf-8"), origin=name)
    scanner = yara_x.Scanner(compiler.build())
    for place, path in enumerate(task.paths):
        size = Path(path).stat().st_size
        if not size:
            continue
        with (
            Path(path).open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            seen: set[str] = set()
            for begin, end in windows(size, 64 << 20, OVERLAP):
                for rule in scanner.scan(data[begin:end]).matching_rules:
                    if rule.identifier not in seen:
                        seen.add(rule.identifier)
                        yield "yara.match", place, f"matches the rule {rule.identifier}", "yara"


if __name__ == "__main__":
    main()
