"""Registries for tests: Debian's ``docker-registry`` where it is installed, and a hostile one."""

import base64
import hashlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.house import eventually
from tests.servers import ranged, reply, serving

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
TITLE = "org.opencontainers.image.title"
TAR_LAYER = "application/vnd.oci.image.layer.v1.tar"


def needs(*programs: str) -> None:
    """Skip, loudly, where a real client or server is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"NOT TESTED HERE: {program} is missing: apt-get install {program}")


def clean_environment() -> dict[str, str]:
    """Return the environment without what makes other programs trust or ask elsewhere."""
    drop = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "AWS_CA_BUNDLE")
    return {name: value for name, value in os.environ.items() if name not in drop}


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@contextmanager
def docker_registry(folder: Path) -> Iterator[str]:
    """Run the real registry; yield its ``HOST:PORT``."""
    needs("docker-registry")
    port = free_port()
    settings = folder / "registry.yml"
    settings.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: "
        f"{folder / 'data'}}}, delete: {{enabled: true}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(settings)], stdout=log, stderr=log
        )
    try:

        def up() -> bool:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=5) as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False

        eventually(up, "docker-registry")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def layer(
    data: bytes, name: str | None = None, media_type: str = TAR_LAYER, **more: Any
) -> dict[str, Any]:
    """Return the descriptor of a blob."""
    annotations = {"annotations": {TITLE: name}} if name is not None else {}
    found = {"mediaType": media_type, "digest": digest(data), "size": len(data)}
    return {**found, **annotations, **more}


def manifest(*layers: dict[str, Any], **more: Any) -> bytes:
    """Return the bytes of a manifest, as ``oras push`` makes one."""
    config = layer(b"{}", media_type="application/vnd.oci.empty.v1+json")
    document = {
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.test",
        "config": config, "layers": list(layers), **more,
    }  # fmt: skip
    return json.dumps(document).encode()


@dataclass
class Hostile:
    """A registry of one repository, ``m``, that does what it is told to, good or bad.

    ``wants`` is None, ``basic`` or ``bearer``; ``realm`` is where tokens are to be had.
    ``elsewhere`` sends whoever wants a blob to another base URL. ``cuts`` are after how many bytes
    the next answers break off. ``asked`` is what came: method, path, range, authorization.
    """

    manifests: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    wants: str | None = None
    realm: str = ""
    password: str = "right"
    token: str = "T0KEN"
    elsewhere: str | None = None
    cuts: list[int] = field(default_factory=list)
    stall: float = 0.0
    length: int | None = None
    kind: str = MANIFEST
    asked: list[tuple[str, str, str | None, str | None]] = field(default_factory=list)
    extra: Callable[[BaseHTTPRequestHandler], bool] = lambda _: False
    url: str = ""

    @property
    def host(self) -> str:
        return self.url.removeprefix("http://")

    def add(self, data: bytes) -> bytes:
        self.blobs[digest(data)] = data
        return data

    def push(self, tag: str, data: bytes) -> None:
        self.manifests[tag] = self.manifests[digest(data)] = data

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        authorization = request.headers.get("authorization")
        self.asked.append(
            (request.command, request.path, request.headers.get("range"), authorization)
        )
        if self.extra(request):
            return
        path = request.path.partition("?")[0]
        if path == "/token":
            good = authorization == self._basic()
            given = json.dumps({"token": self.token}).encode()
            reply(request, 200 if good else 401, given if good else b"{}")
            return
        if self.wants and authorization not in (self._expected(),):
            challenge = 'Basic realm="r"' if self.wants == "basic" else (
                f'Bearer realm="{self.realm or self.url + "/token"}",service="s"'
            )  # fmt: skip
            reply(request, 401, b"{}", {"www-authenticate": challenge})
            return
        name = path.rpartition("/")[2]
        if "/manifests/" in path and name in self.manifests:
            reply(request, 200, self.manifests[name], {"content-type": self.kind})
        elif "/blobs/" in path and name in self.blobs:
            self._blob(request, name)
        else:
            reply(request, 404, b'{"errors": [{"code": "UNKNOWN", "message": "no such thing"}]}')

    def _blob(self, request: BaseHTTPRequestHandler, name: str) -> None:
        if self.elsewhere is not None:
            reply(request, 307, b"", {"location": f"{self.elsewhere}/{name}"})
            return
        data = self.blobs[name]
        if request.headers.get("range") == "bytes=0-0":
            size = len(data) if self.length is None else self.length
            reply(request, 206, data[:1], {"content-range": f"bytes 0-0/{size}"})
            return
        time.sleep(self.stall)
        ranged(request, data, self.cuts.pop(0) if self.cuts else None)

    def _basic(self) -> str:
        return "Basic " + base64.b64encode(f"ci:{self.password}".encode()).decode()

    def _expected(self) -> str:
        return self._basic() if self.wants == "basic" else f"Bearer {self.token}"


@contextmanager
def hostile(**fields: Any) -> Iterator[Hostile]:
    """Serve a hostile registry; what it does can be changed while it runs."""
    made = Hostile(**fields)
    made.add(b"{}")
    with serving(made.handle) as url:
        made.url = url
        yield made
