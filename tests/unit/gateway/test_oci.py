"""What paths below ``/v2/`` mean, and how the registry words errors."""

import asyncio
import fcntl
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from freehold.errors import Conflict, Invalid, Unauthenticated
from freehold.gateway.faults import fault
from freehold.gateway.oci.relay import _range, _write
from freehold.gateway.oci.routes import FORM, METHODS, URLS, code_of, read_path
from freehold.gateway.routes import ROUTES
from freehold.gateway.routes import find as find_route


@pytest.mark.parametrize(
    ("path", "kind", "repository", "label"),
    [
        ("/v2/", "base", "", ""), ("/v2/_catalog", "catalog", "", ""),
        ("/v2/m/tags/list", "tags", "m", ""), ("/v2/m/manifests/v1", "manifest", "m", "v1"),
        ("/v2/m/blobs/sha256:00", "blob", "m", "sha256:00"),
        ("/v2/m/blobs/uploads/", "uploads", "m", ""), ("/v2/m/blobs/uploads", "uploads", "m", ""),
        ("/v2/m/blobs/uploads/id", "upload", "m", "id"),
        ("/v2/m/referrers/sha256:00", "referrers", "m", "sha256:00"),
        ("/v2/a/b/manifests/v1", "manifest", "a/b", "v1"),
        ("/v2/blobs/blobs/x", "blob", "blobs", "x"), ("/v2/tags/tags/list", "tags", "tags", ""),
        ("/v2/modelsx/tags/list", "tags", "modelsx", ""),
    ],
)  # fmt: skip
def test_paths_of_the_registry(path: str, kind: str, repository: str, label: str) -> None:
    found = read_path(path)
    assert found is not None
    assert (found.kind, found.repository, found.label) == (kind, repository, label)
    assert find_route(path) is None


@pytest.mark.parametrize(
    "path",
    ["/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/m", "/v2/models/manifests/ready",
     "/v2/models/manifests/infer", "/v2/models/m/versions/1/infer", "/v2/models/blobs/uploads/",
     "/v2/health/manifests/x", "/v2/models/tags/list", "/v2/m", "/v2/m/blobs", "/v2/m/tags/x",
     "/v1/models", "/v2/m/manifests/a/b"],
)  # fmt: skip
def test_paths_that_are_not_the_registrys(path: str) -> None:
    assert read_path(path) is None


def test_no_route_of_the_inference_protocol_is_the_registrys() -> None:
    """By construction: also for deployments that are called like the registry's own words."""
    for shape in ROUTES:
        for word in ("manifests", "blobs", "tags", "referrers", "list", "uploads"):
            path = shape.replace("{name}", word).replace("{version}", "1").replace("{id}", word)
            assert read_path(path) is None, path


def test_each_kind_has_a_url_and_methods() -> None:
    assert URLS.keys() == METHODS.keys()
    for kind, url in URLS.items():
        filled = (
            url.format(name="m", reference="v1", digest="sha256:00", id="x") if "{" in url else url
        )
        found = read_path(filled)
        assert found is not None
        assert found.kind == kind


@pytest.mark.parametrize(
    ("text", "part"),
    [(None, None), ("bytes=0-4", (0, 5)), ("bytes=3-", (3, 10)), ("bytes=-4", (6, 10)),
     ("bytes=-99", (0, 10)), ("bytes=8-99", (8, 10)), ("bytes=1-2,4-5", None), ("lines=1-2", None),
     ("bytes=a-b", None), ("bytes=-", None), ("bytes=\u0661-", None)],
)  # fmt: skip
def test_ranges(text: str | None, part: tuple[int, int] | None) -> None:
    assert _range(text, 10) == part


@pytest.mark.parametrize("text", ["bytes=10-", "bytes=11-12", "bytes=5-4", "bytes=-0"])
def test_ranges_of_nothing(text: str) -> None:
    with pytest.raises(Invalid):
        _range(text, 10)


@pytest.mark.parametrize(
    ("code", "name"),
    [("unauthenticated.unknown_key", "UNAUTHORIZED"), ("forbidden.repository", "DENIED"),
     ("missing.blob", "BLOB_UNKNOWN"), ("missing.manifest", "MANIFEST_UNKNOWN"),
     ("missing.repository", "NAME_UNKNOWN"), ("invalid.digest", "DIGEST_INVALID"),
     ("invalid.gguf", "MANIFEST_INVALID"), ("invalid.manifest_blob", "MANIFEST_BLOB_UNKNOWN"),
     ("unavailable.control", "UNKNOWN")],
)  # fmt: skip
def test_codes_of_the_specification(code: str, name: str) -> None:
    assert code_of(code) == name


def test_errors_are_worded_as_registries_do() -> None:
    body = json.loads(FORM.body(fault(Unauthenticated("unauthenticated.x", "who?"), "req-1")))
    detail = {"code": "unauthenticated.x", "id": "req-1"}
    assert body["errors"] == [{"code": "UNAUTHORIZED", "message": "who?", "detail": detail}]


def test_what_is_finished_meanwhile_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was opened as an upload and is a blob once its lock is free."""
    path, blob = tmp_path / "upload", tmp_path / "blob"
    path.write_bytes(b"checked")
    lock = fcntl.flock

    def late(file: int, how: int) -> None:
        path.replace(blob)
        lock(file, how)

    async def pieces() -> AsyncIterator[bytes]:
        yield b" and more"

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(Conflict, match="begin again"):
        asyncio.run(_write(pieces(), path, 7, 100))
    assert blob.read_bytes() == b"checked"
