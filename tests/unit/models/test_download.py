"""One file over HTTP by several connections, from servers with the faults of the real world."""

import hashlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from freehold.errors import DigestMismatch, FreeholdError, Missing, Unavailable
from freehold.models import connections, ranges
from freehold.models.download import Wanted, download, open_client
from freehold.settings import Sources
from tests.house import eventually
from tests.servers import reply, serving

RANGE = 64 * 1024
DATA, OTHER = os.urandom(10 * RANGE + 77), os.urandom(10 * RANGE + 77)
Fault = Callable[[BaseHTTPRequestHandler, int, int], bool]


class Server:
    """Serves one file with ranges, an ETag and If-Range; ``fault`` may answer in its place."""

    def __init__(self) -> None:
        self.data = DATA
        self.fault: Fault = lambda *_: False
        self.asked: list[str | None] = []
        self.conditions: list[str | None] = []
        self.inside = self.most = 0
        self.pace = 0.0
        self.etag: str | None = None
        self.looks_at_conditions = True
        self.url = ""
        self._lock = threading.Lock()

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("range")
        with self._lock:
            self.asked.append(asked)
            self.conditions.append(request.headers.get("if-range"))
            self.inside += 1
            self.most = max(self.most, self.inside)
        try:
            self._answer(request, asked)
        finally:
            with self._lock:
                self.inside -= 1

    def _answer(self, request: BaseHTTPRequestHandler, asked: str | None) -> None:
        start, end = 0, len(self.data)
        if asked is not None:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end = int(first), int(last) + 1 if last else end
        if self.fault(request, start, end):
            return
        time.sleep(self.pace)
        told = {"etag": self.tag()}
        condition = request.headers.get("if-range") if self.looks_at_conditions else None
        if asked is None or condition not in (None, self.tag()):
            reply(request, 200, self.data, told)
        else:
            self.part(request, start, end, **told)

    def tag(self) -> str:
        return self.etag or f'"{hashlib.sha256(self.data).hexdigest()}"'

    def part(self, request: BaseHTTPRequestHandler, start: int, end: int, **more: str) -> None:
        told = {"content-range": f"bytes {start}-{end - 1}/{len(self.data)}", **more}
        reply(request, 206, self.data[start:end], told)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(ranges, "RANGE", RANGE)
    monkeypatch.setattr(ranges, "LEAST", 2 * RANGE)
    monkeypatch.setattr(connections, "PAUSE", 0.01)
    made = Server()
    with serving(made.handle) as made.url:
        yield made


def fetch(server: Server, folder: Path, data: bytes = DATA, timeout: float = 5) -> bytes:
    """Download ``data``, and see that nothing else is left there."""
    wanted = Wanted(url=f"{server.url}/m", sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
    told: list[int] = []
    with open_client(Sources(timeout=timeout), {}) as client:
        download(client, wanted, folder / "m", told.append)
    assert told[-1] == len(data)
    assert [each.name for each in folder.iterdir()] == ["m"]
    return (folder / "m").read_bytes()


def test_a_large_file_comes_by_several_connections_at_once(server: Server, tmp_path: Path) -> None:
    server.pace = 0.05
    assert fetch(server, tmp_path) == DATA
    assert server.most == ranges.CONNECTIONS
    assert sorted(server.asked, key=lambda each: int((each or "")[6:].split("-")[0])) == [
        f"bytes={start}-{min(start + RANGE, len(DATA)) - 1}" for start in range(0, len(DATA), RANGE)
    ]
    assert f'"{hashlib.sha256(DATA).hexdigest()}"' in server.conditions


def test_a_small_file_comes_by_one(server: Server, tmp_path: Path) -> None:
    server.data = DATA[: 2 * RANGE - 1]
    assert fetch(server, tmp_path, server.data) == server.data
    assert server.asked == [None]


def whole(server: Server) -> None:
    def fault(request: BaseHTTPRequestHandler, start: int, end: int) -> bool:
        reply(request, 200, server.data)
        return True

    server.fault = fault


def whole_at_times(server: Server) -> None:
    def fault(request: BaseHTTPRequestHandler, start: int, end: int) -> bool:
        if start == 3 * RANGE:
            reply(request, 200, server.data)
        return start == 3 * RANGE

    server.fault = fault


def wrong_range(server: Server) -> None:
    """Give other bytes than those asked for, and say so."""

    def fault(request: BaseHTTPRequestHandler, start: int, end: int) -> bool:
        if start == 2 * RANGE:
            server.part(request, start - 10, end - 10)
        return start == 2 * RANGE

    server.fault = fault


def changing_tags(server: Server) -> None:
    """Call the same bytes otherwise each time, as machines behind one name may."""

    def fault(request: BaseHTTPRequestHandler, start: int, end: int) -> bool:
        if request.headers.get("range") is not None:
            server.part(request, start, end, etag=f'W/"{len(server.asked)}"')
        return request.headers.get("range") is not None

    server.fault = fault


def cut(server: Server) -> None:
    def fault(request: BaseHTTPRequestHandler, start: int, end: int) -> bool:
        broken = start == RANGE and server.asked.count(request.headers["range"]) == 1
        if broken:
            told = {"content-range": f"bytes {start}-{end - 1}/{len(DATA)}"}
            reply(request, 206, DATA[start:end], told, cut=1000)
        return broken

    server.fault = fault


def short(server: Server) -> None:
    """End a range early without an error."""

    def fault(request: BaseHTTPRequestHandler, start: int, end: int) -> bool:
        broken = start == RANGE and end == 2 * RANGE
        if broken:
            told = {"content-range": f"bytes {start}-{end - 1}/{len(DATA)}"}
            reply(request, 206, DATA[start : start + 1000], told)
        return broken

    server.fault = fault


def stalling(server: Server) -> None:
    def fault(request: BaseHTTPRequestHandler, start: int, end: int) -> bool:
        if start == RANGE and server.asked.count(request.headers["range"]) == 1:
            time.sleep(1.0)
            request.close_connection = True
            return True
        return False

    server.fault = fault


def busy(server: Server) -> None:
    """Allow two at a time."""

    def fault(request: BaseHTTPRequestHandler, start: int, end: int) -> bool:
        if server.inside > 2:
            reply(request, 429)
            return True
        time.sleep(0.02)
        return False

    server.fault = fault


@pytest.mark.parametrize(
    "fault", [whole, whole_at_times, wrong_range, changing_tags, cut, short, stalling, busy]
)
def test_whatever_a_server_does_it_ends_in_the_right_bytes(
    server: Server, tmp_path: Path, fault: Callable[[Server], None]
) -> None:
    fault(server)
    assert fetch(server, tmp_path, timeout=0.3) == DATA


@pytest.mark.parametrize("etag", [None, '"same"'])
def test_two_versions_are_never_mixed(server: Server, tmp_path: Path, etag: str | None) -> None:
    server.etag = etag

    def fault(request: BaseHTTPRequestHandler, start: int, end: int) -> bool:
        if start >= 4 * RANGE:
            server.data = OTHER
        return False

    server.fault = fault
    with pytest.raises(DigestMismatch, match="nothing was kept"):
        fetch(server, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("looks", [True, False])
def test_between_two_tries_the_file_has_become_the_right_one(
    server: Server, tmp_path: Path, looks: bool
) -> None:
    server.data = OTHER
    leave_half(server, tmp_path, DATA)
    server.data, server.looks_at_conditions = DATA, looks
    server.fault = lambda *_: False
    assert fetch(server, tmp_path) == DATA


def leave_half(server: Server, folder: Path, wanted: bytes = DATA) -> None:
    """Fail with the second half of the file missing."""

    def fault(request: BaseHTTPRequestHandler, start: int, end: int) -> bool:
        if start >= 5 * RANGE:
            reply(request, 503)
        return start >= 5 * RANGE

    server.fault = fault
    with pytest.raises(Unavailable, match="answered 503; what has come is kept"):
        fetch(server, folder, wanted)
    assert {each.name for each in folder.iterdir()} == {"m.part", "m.part.ranges"}
    server.asked.clear()


def test_only_what_is_missing_is_fetched_again(server: Server, tmp_path: Path) -> None:
    leave_half(server, tmp_path)
    server.fault = lambda *_: False
    assert fetch(server, tmp_path) == DATA
    assert sorted(server.asked, key=lambda each: int((each or "")[6:].split("-")[0])) == [
        f"bytes={start}-{min(start + RANGE, len(DATA)) - 1}"
        for start in range(5 * RANGE, len(DATA), RANGE)
    ]


def test_what_one_connection_left_is_gone_on_with(server: Server, tmp_path: Path) -> None:
    (tmp_path / "m.part").write_bytes(DATA[:100])
    assert fetch(server, tmp_path) == DATA
    assert f"bytes=100-{100 + RANGE - 1}" in server.asked
    assert None not in server.asked


def test_ranges_left_there_are_no_beginning_for_one_connection(
    server: Server, tmp_path: Path
) -> None:
    leave_half(server, tmp_path)
    os.truncate(tmp_path / "m.part", 6 * RANGE)  # a hole behind what came
    whole(server)
    assert fetch(server, tmp_path) == DATA


@pytest.mark.parametrize(
    ("status", "error"), [(404, Missing), (403, Unavailable), (503, Unavailable)]
)
def test_what_is_not_to_be_had_is_said_once(
    server: Server, tmp_path: Path, status: int, error: type[FreeholdError]
) -> None:
    def fault(request: BaseHTTPRequestHandler, start: int, end: int) -> bool:
        reply(request, status)
        return True

    server.fault = fault
    with pytest.raises(error):
        fetch(server, tmp_path)
    assert len(server.asked) <= ranges.CONNECTIONS * connections.TRIES
    assert not running()


def test_a_full_disk_leaves_nothing_in_its_way(server: Server, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * RANGE, limits[1]))
    try:
        with pytest.raises(Unavailable, match="no space left"):
            fetch(server, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []
    assert not running()


def test_who_watches_may_end_it(server: Server, tmp_path: Path) -> None:
    server.pace = 0.1

    def stop(done: int) -> None:
        if done:
            raise Unavailable("unavailable.cancelled", "cancelled")

    wanted = Wanted(url=server.url, sha256=hashlib.sha256(DATA).hexdigest(), bytes=len(DATA))
    with open_client(Sources(timeout=5), {}) as client, pytest.raises(Unavailable, match="cancel"):
        download(client, wanted, tmp_path / "m", stop)
    assert not running()
    server.pace = 0
    assert fetch(server, tmp_path) == DATA


def running() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("range-")]


KILLED = """
import sys
from pathlib import Path
from freehold.models import partial, ranges
from freehold.models.download import Wanted, download, open_client
from freehold.settings import Sources
ranges.RANGE, ranges.LEAST, partial.EVERY = int(sys.argv[4]), 2 * int(sys.argv[4]), 1
with open_client(Sources(), {}) as client:
    wanted = Wanted(url=sys.argv[1], sha256=sys.argv[2], bytes=int(sys.argv[3]))
    download(client, wanted, Path(sys.argv[5]), lambda done: None)
"""


def test_a_killed_process_is_gone_on_with(server: Server, tmp_path: Path) -> None:
    def fault(request: BaseHTTPRequestHandler, start: int, end: int) -> bool:
        if start == 0:  # the first one hangs: all that comes is out of order
            time.sleep(20)
        return start == 0

    server.fault = fault
    arguments = [server.url, hashlib.sha256(DATA).hexdigest(), str(len(DATA)), str(RANGE),
                 str(tmp_path / "m")]  # fmt: skip
    child = subprocess.Popen([sys.executable, "-c", KILLED, *arguments])
    part = tmp_path / "m.part"
    eventually(lambda: part.exists() and part.stat().st_size == len(DATA), "the last range", 30)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "m").exists()
    server.fault = lambda *_: False
    server.asked.clear()
    assert fetch(server, tmp_path) == DATA
    assert f"bytes=0-{RANGE - 1}" in server.asked
    assert len(server.asked) <= 1 + ranges.CONNECTIONS
