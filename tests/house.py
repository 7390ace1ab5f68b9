"""A running Freehold for a test: real processes on a real home, on a free port."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

PATIENCE = 90.0
IDLE_TASKS = 9
"""What a gateway's event loop works on when nobody asks anything."""
LET_GO = 15.0
"""Seconds until whatever a request took must be given back."""
RUNNING: "list[House]" = []
QUESTION = [{"role": "user", "content": "What is gravity?"}]


@dataclass
class Answer:
    """A whole HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return self.json["error"]


@dataclass
class House:
    """``freehold up`` on ``home`` and ways to talk to it."""

    home: Path
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    control: subprocess.Popen[bytes] | None = None
    prefix: tuple[str, ...] = ()

    def start(self, *, wait: bool = True) -> "House":
        log = (self.home.parent / f"{self.home.name}.log").open("ab")
        with log:
            self.control = subprocess.Popen(
                [
                    *self.prefix, sys.executable, "-m", "freehold", "up", "--home", str(self.home),
                    "--no-starter", "--port", "0", *self.arguments,
                ],
                stdout=log, stderr=log, env={**os.environ, **self.environment},
            )  # fmt: skip
        RUNNING.append(self)
        if wait:
            self.wait_ready()
        return self

    @property
    def log(self) -> str:
        return (self.home.parent / f"{self.home.name}.log").read_text()

    @property
    def url(self) -> str:
        return (self.home / "run" / "url").read_text().strip()

    @property
    def key(self) -> str:
        return (self.home / "admin.key").read_text().strip()

    def wait_ready(self) -> None:
        def ready() -> bool:
            assert self.control is not None
            if self.control.poll() is not None:
                raise AssertionError(f"freehold up ended: {self.log}")
            try:
                if self.call("GET", "/readyz", key=None).status != 200:
                    return False
                # A gateway that outlived its control is ready before the new control is.
                status = self.call("GET", "/api/status")
                return status.status == 200 and status.json["control_pid"] == self.control.pid
            except OSError:
                return False

        eventually(ready, "ready")

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        key: str | None = "admin",
        headers: dict[str, str] | None = None,
        timeout: float = 60,
        url: str | None = None,
    ) -> Answer:
        """One request; ``body`` is sent as JSON unless it is bytes."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request((url or self.url) + path, data, method=method)
        request.add_header("content-type", "application/json")
        if key is not None:
            request.add_header("authorization", f"Bearer {self.key if key == 'admin' else key}")
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                return Answer(response.status, _lower(response.headers), response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, _lower(error.headers), error.read())

    def chat(self, **fields: Any) -> Answer:
        key = fields.pop("key", "admin")
        headers = fields.pop("headers", None)
        body = {"model": "smol", "messages": QUESTION, "max_tokens": 8, "temperature": 0, **fields}
        return self.call("POST", "/v1/chat/completions", body, key=key, headers=headers)

    def cli(self, *arguments: str, code: int = 0, text: str | None = None) -> str:
        """Run the command line on this home; assert its exit code; return its stdout."""
        ran = self.run_cli(*arguments, text=text)
        assert ran.returncode == code, (arguments, ran.returncode, ran.stdout, ran.stderr)
        return ran.stdout

    def run_cli(self, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "freehold", *arguments, "--home", str(self.home)],
            capture_output=True, text=True, input=text, timeout=PATIENCE, check=False,
            env={**os.environ, **self.environment},
        )  # fmt: skip

    def json(self, *arguments: str) -> Any:
        return json.loads(self.cli(*arguments, "--json"))

    def make_key(self, role: str, **fields: Any) -> str:
        answer = self.call("POST", "/api/keys", {"principal": f"a-{role}", "role": role, **fields})
        assert answer.status == 201, answer.body
        return answer.json["key"]

    def deployment(self, name: str = "smol") -> dict[str, Any]:
        answer = self.call("GET", f"/api/deployments/{name}")
        assert answer.status == 200, answer.body
        return answer.json

    def replicas(self, name: str = "smol") -> list[dict[str, Any]]:
        return self.deployment(name)["replicas"]

    def engine_pid(self, name: str = "smol") -> int:
        pid = self.replicas(name)[0]["pid"]
        assert isinstance(pid, int)
        return pid

    def gateways(self) -> list[int]:
        paths = sorted((self.home / "run" / "gateways").glob("*.json"))
        return [json.loads(path.read_text())["pid"] for path in paths]

    def audit(self, **query: str) -> list[dict[str, Any]]:
        text = "&".join(f"{name}={value}" for name, value in query.items())
        return self.call("GET", f"/api/audit?{text}").json["records"]

    def standings(self) -> list[dict[str, Any]] | None:
        """Return what goes on in each gateway now; None where nobody can say."""
        try:
            where = json.loads((self.home / "run" / "endpoint.json").read_text())
            answer = self.call("GET", "/api/gateways", url=where["control_url"], timeout=5)
        except (OSError, ValueError):
            return None
        found: list[dict[str, Any]] | None = None
        if answer.status == 200:
            found = [each for each in answer.json["gateways"] if each["state"] == "serving"]
        return found

    def check_nothing_left(self) -> None:
        """Fail unless every request has given back its tasks, its sockets and its reservations.

        Where control is dead, or no key of the test's administers any more, nobody can say.
        """
        left: list[str] = []

        def is_quiet() -> bool:
            left[:] = [text for each in self.standings() or () for text in _left(each)]
            return not left

        deadline = time.monotonic() + LET_GO
        while not is_quiet():
            if time.monotonic() > deadline:
                raise AssertionError(f"left behind after a test: {', '.join(left)}")
            time.sleep(0.05)

    def kill_control(self) -> None:
        assert self.control is not None
        self.control.kill()
        self.control.wait()
        self.control = None

    def stop(self) -> int:
        """Stop cleanly and return the exit code."""
        assert self.control is not None
        self.control.send_signal(signal.SIGINT)
        code = self.control.wait(PATIENCE)
        self.control = None
        return code

    def close(self) -> None:
        """Stop in whatever state it is; leave no process behind, after a look at what is left."""
        try:
            if self.is_up:
                self.check_nothing_left()
        finally:
            RUNNING[:] = [house for house in RUNNING if house is not self]
            self._end()

    @property
    def is_up(self) -> bool:
        return self.control is not None and self.control.poll() is None

    def _end(self) -> None:
        if self.control is not None:
            self.control.send_signal(signal.SIGTERM)
            try:
                self.control.wait(30)
            except subprocess.TimeoutExpired:
                self.control.kill()
                self.control.wait()
        for path in (
            *self.home.glob("run/gateways/*.json"),
            *self.home.glob("run/replicas/*.json"),
        ):
            with suppress(ValueError, KeyError, psutil.NoSuchProcess, FileNotFoundError):
                psutil.Process(json.loads(path.read_text())["pid"]).kill()


def _left(gateway: dict[str, Any]) -> list[str]:
    """Return what a gateway still has that it should not; a connection half closed is one, too."""
    found = {name: gateway[name] for name in ("inflight", "requests", "reservations", "links")}
    found["tasks"] = gateway["tasks"] - IDLE_TASKS
    with suppress(psutil.Error):
        sockets = psutil.Process(gateway["pid"]).net_connections("tcp")
        found["half closed"] = sum(each.status == psutil.CONN_CLOSE_WAIT for each in sockets)
    return [f"{gateway['name']} has {count} {name}" for name, count in found.items() if count > 0]


def eventually(check: Callable[[], object], what: str, patience: float = PATIENCE) -> Any:
    """Return the first true value of ``check``; fail loudly when there is none in time."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        found = check()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {patience} s: {what}")


def events(body: bytes) -> list[Any]:
    """Return the events of a stream, decoded; the closing ``[DONE]`` as it is."""
    found = []
    for line in body.split(b"\n\n"):
        if line.startswith(b"data: "):
            data = line.removeprefix(b"data: ")
            found.append("[DONE]" if data == b"[DONE]" else json.loads(data))
    return found


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
