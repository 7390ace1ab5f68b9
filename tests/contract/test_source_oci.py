"""``source.oci`` against a registry that does what registries must not, and against a real one."""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from freehold.builtin.source_oci import OCI
from freehold.errors import DigestMismatch, Forbidden, FreeholdError, Invalid, Missing, Unavailable
from freehold.models import connections, ranges
from freehold.models.oci import media
from freehold.models.oci.zstd import zstd
from freehold.models.source import Fetched
from freehold.settings import Host, Sources
from tests.house import eventually
from tests.make_gguf import gguf
from tests.registries import (
    MANIFEST,
    Hostile,
    clean_environment,
    digest,
    docker_registry,
    hostile,
    layer,
    manifest,
    needs,
)
from tests.servers import reply, serving

MODEL = gguf()
CARD = b"# Tiny\n\nMade for a test."


def quiet(*_: object) -> None:
    return


@pytest.fixture
def registry() -> Iterator[Hostile]:
    with hostile() as made:
        made.push("v1", manifest(layer(made.add(MODEL), "m.gguf")))
        yield made


def fetch(registry: Hostile, scratch: Path, reference: str = "m:v1", **host: object) -> Fetched:
    settings = Sources(timeout=2, hosts={registry.host: Host(**host)} if host else {})  # type: ignore[arg-type]
    source = OCI(settings)
    origin = source.claims(f"oci://{registry.host}/{reference}")
    assert origin is not None
    return source.fetch(origin, scratch, quiet)


def fresh(folder: Path) -> Path:
    made = folder / os.urandom(4).hex()
    made.mkdir()
    return made


def bytes_of(fetched: Fetched) -> bytes:
    return fetched.files["model.gguf"].read_bytes()


def test_a_plain_artifact_by_tag_and_by_digest(registry: Hostile, tmp_path: Path) -> None:
    fetched = fetch(registry, tmp_path)
    known = digest(registry.manifests["v1"])
    assert bytes_of(fetched) == MODEL
    assert (fetched.name, fetched.moved) == ("m", True)
    assert fetched.resolved == f"oci://{registry.host}/m@{known}"
    assert bytes_of(fetch(registry, fresh(tmp_path), f"m@{known}")) == MODEL
    assert bytes_of(fetch(registry, fresh(tmp_path), f"m:v1@{known}")) == MODEL


def test_a_modelpack_artifact_with_its_card_and_nothing_of_its_code(
    registry: Hostile, tmp_path: Path
) -> None:
    code = registry.add(b"import os")
    named = {"annotations": {media.FILEPATH: "m.gguf"}}
    registry.push("v1", manifest(
        layer(MODEL, None, media.WEIGHT + media.RAW, **named),
        layer(registry.add(CARD), None, media.DOC + media.RAW,
              annotations={media.FILEPATH: "README.md"}),
        layer(code, None, media.CODE + media.RAW, annotations={media.FILEPATH: "run.py"}),
        annotations={"org.opencontainers.image.licenses": "MIT"},
    ))  # fmt: skip
    fetched = fetch(registry, tmp_path)
    assert (bytes_of(fetched), fetched.card, fetched.licence) == (MODEL, CARD.decode(), "MIT")
    assert not any(digest(code) in path for _, path, *_ in registry.asked)


def test_which_file_of_several(registry: Hostile, tmp_path: Path) -> None:
    other = registry.add(gguf({"general.architecture": "llama", "general.name": "other"}))
    registry.push("v1", manifest(layer(MODEL, "a.gguf"), layer(other, "b.gguf")))
    with pytest.raises(Invalid, match=r"several models: there is a.gguf, b.gguf; name one by #"):
        fetch(registry, tmp_path)
    fetched = fetch(registry, tmp_path, "m:v1#b.gguf")
    assert bytes_of(fetched) == other
    assert fetched.resolved.endswith("#b.gguf")
    with pytest.raises(Invalid, match="no file 'c"):
        fetch(registry, tmp_path, "m:v1#c.gguf")


def test_safetensors_come_with_what_lies_beside_them(registry: Hostile, tmp_path: Path) -> None:
    parts = {"model.safetensors": b"w", "config.json": b"{}", "tokenizer.json": b"[]"}
    layers = [layer(registry.add(data), name) for name, data in parts.items()]
    registry.push("v1", manifest(*layers, layer(registry.add(b"x"), "train.py")))
    found = fetch(registry, tmp_path).files
    assert {name: path.read_bytes() for name, path in found.items()} == parts


@pytest.mark.parametrize("tail", [media.TAR, media.GZIP, media.ZSTD])
def test_layers_that_are_archives(registry: Hostile, tmp_path: Path, tail: str) -> None:
    packed = archive(("x/m.gguf", MODEL), gzip=tail == media.GZIP)
    registry.add(packed := zstd().compress(packed) if tail == media.ZSTD else packed)
    registry.push("v1", manifest(layer(packed, None, media.WEIGHT + tail)))
    assert bytes_of(fetch(registry, tmp_path)) == MODEL


def archive(*files: tuple[str, bytes], gzip: bool = False, link: str | None = None) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz" if gzip else "w") as tar:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        if link is not None:
            member = tarfile.TarInfo("m.gguf")
            member.type, member.linkname = tarfile.SYMTYPE, link
            tar.addfile(member)
    return made.getvalue()


ESCAPES = ("../m.gguf", "/etc/m.gguf", "a/../../m.gguf", "a\\..\\m.gguf", "C:m.gguf", "m\n.gguf")


@pytest.mark.parametrize("name", ESCAPES)
def test_names_that_escape(registry: Hostile, tmp_path: Path, name: str) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    registry.push("v1", manifest(layer(MODEL, name)))
    with pytest.raises(Invalid, match="a plain relative name is wanted"):
        fetch(registry, scratch)
    packed = registry.add(archive((name, MODEL)))
    registry.push("v1", manifest(layer(packed, None, media.WEIGHT + media.TAR)))
    with pytest.raises(Invalid, match="a plain relative name is wanted"):
        fetch(registry, scratch)
    assert [path.name for path in tmp_path.iterdir()] == ["scratch"]


def test_archives_that_are_traps(registry: Hostile, tmp_path: Path) -> None:
    bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
    huge = archive(("m.gguf", bytes(300 * 1024 * 1024)))
    for trap, says in {
        archive(link="/etc/passwd"): "no plain file",
        archive(("m.gguf", MODEL), ("m.gguf", b"x")): "there twice",
        archive(("m.gguf", MODEL))[:700]: "no whole tar archive",
        archive(("a", b""), ("a/m.gguf", MODEL)): "a file where it has a folder",
        bomb.compress(huge) + bomb.flush(): "far more than it is",
        zstd().compress(huge): "far more than it is",
        zstd().compress(archive(("m.gguf", MODEL)))[:-20]: "no whole tar archive",
        b"\x28\xb5\x2f\xfd" + b"no frame" * 20: "no whole tar archive",
    }.items():
        tails = {b"\x1f\x8b": media.GZIP, b"\x28\xb5": media.ZSTD}
        tail = tails.get(trap[:2], media.TAR)
        registry.push("v1", manifest(layer(registry.add(trap), None, media.WEIGHT + tail)))
        with pytest.raises(Invalid, match=says):
            fetch(registry, tmp_path)


def test_other_bytes_under_a_digest(registry: Hostile, tmp_path: Path) -> None:
    registry.blobs[digest(MODEL)] = MODEL[:-1] + b"X"
    with pytest.raises(DigestMismatch, match="nothing was kept"):
        fetch(registry, tmp_path)
    assert list(tmp_path.iterdir()) == []
    known = digest(registry.manifests["v1"])
    registry.manifests[known] = registry.manifests["v1"] + b" "
    with pytest.raises(DigestMismatch, match="damaged or lies"):
        fetch(registry, tmp_path, f"m@{known}")


def test_a_wrong_length_is_seen_before_the_download(registry: Hostile, tmp_path: Path) -> None:
    registry.length = len(MODEL) + 1
    with pytest.raises(Invalid, match="nothing was fetched"):
        fetch(registry, tmp_path)


def test_a_tag_and_a_digest_that_differ(registry: Hostile, tmp_path: Path) -> None:
    old = digest(registry.manifests["v1"])
    registry.push("v1", manifest(layer(MODEL, "new.gguf")))
    with pytest.raises(Invalid, match="leave out one of the two"):
        fetch(registry, tmp_path, f"m:v1@{old}")
    assert bytes_of(fetch(registry, tmp_path, f"m@{old}")) == MODEL
    # A tag that looks like a digest is none.
    registry.push("sha256-" + old[7:], manifest(layer(MODEL, "new.gguf")))
    assert fetch(registry, tmp_path, f"m:sha256-{old[7:]}").resolved.rpartition("@")[2] != old


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"[" * 100_000, "not valid JSON"),
        (b'{"schemaVersion": 2, "layers": [], "layers": []}', "twice"),
        (b"[]", "no JSON object"),
        (manifest(*[layer(MODEL, f"{n}.bin") for n in range(1001)]), "1000 is most"),
        (b'{"x": "' + b"x" * (5 << 20) + b'"}', "more than|over"),
        (manifest(layer(MODEL, "m.gguf", digest="sha512:00")), "again with sha256 digests"),
        (manifest(layer(MODEL, "m.gguf", digest="sha256:00")), "is no digest"),
        (manifest(layer(MODEL, "m.gguf", digest="../../x")), "is no digest"),
        (manifest(layer(MODEL, "m.gguf"), layer(MODEL, "n.gguf", size=1)), "two sizes"),
        (manifest(layer(MODEL, "m.gguf"), layer(MODEL, "m.gguf")), "one file name"),
        (manifest(layer(MODEL, "m.gguf"), schemaVersion=1), "schema version 1"),
        (manifest(layer(MODEL, "m.gguf"), mediaType="application/x"), "calls itself"),
        (manifest(layer(MODEL, "m.gguf"), manifests=[]), "at once"),
        (manifest(layer(MODEL, "m.gguf", size=-1)), "the manifest is wrong"),
        (manifest(layer(MODEL)), "no model"),
        (manifest(layer(b"x", "x.bin", "application/x-odd")), "no model"),
        (manifest(), "no model"),
    ],
)
def test_manifests_that_are_wrong(
    registry: Hostile, tmp_path: Path, data: bytes, says: str
) -> None:
    registry.push("v1", data)
    with pytest.raises(Invalid, match=says):
        fetch(registry, tmp_path)
    assert not any("/blobs/" in path for _, path, *_ in registry.asked)


def test_an_index_of_one(registry: Hostile, tmp_path: Path) -> None:
    inner = {"mediaType": MANIFEST, "digest": digest(registry.manifests["v1"]), "size": 1}
    kind = "application/vnd.oci.image.index.v1+json"
    whole = {"schemaVersion": 2, "mediaType": kind, "manifests": [inner]}
    registry.push("list", json.dumps(whole).encode())
    registry.kind = "application/octet-stream"
    assert bytes_of(fetch(registry, tmp_path, "m:list")) == MODEL
    two = {"mediaType": MANIFEST, "digest": digest(b""), "size": 0}
    registry.push("list", json.dumps({**whole, "manifests": [inner, two]}).encode())
    with pytest.raises(Invalid, match="an index of 2: name one of sha256:"):
        fetch(registry, tmp_path, "m:list")


@pytest.mark.parametrize(
    "text", ["oci://h", "oci://h/R:x", "oci://h/r:.x", "oci://h/r@sha256:12", "oci://u:p@h/r",
             "oci://h/../r", "oci://h/r:x@sha512:00"],
)  # fmt: skip
def test_references_that_are_wrong(tmp_path: Path, text: str) -> None:
    source = OCI(Sources())
    origin = source.claims(text)
    assert origin is not None
    with pytest.raises(Invalid, match="names no artifact"):
        source.fetch(origin, tmp_path, quiet)


def test_a_download_goes_on_where_it_broke_off(registry: Hostile, tmp_path: Path) -> None:
    data = registry.add(os.urandom(300_000))
    registry.push("v1", manifest(layer(data, "m.gguf")))
    registry.cuts = [100_000, 50_000]
    assert bytes_of(fetch(registry, tmp_path)) == data
    ranges = [asked for _, path, asked, _ in registry.asked if digest(data) in path]
    assert ranges == ["bytes=0-0", None, "bytes=100000-", "bytes=150000-"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    """Ranges of a size that tests can afford."""
    monkeypatch.setattr(ranges, "RANGE", 64 * 1024)
    monkeypatch.setattr(ranges, "LEAST", 128 * 1024)
    monkeypatch.setattr(connections, "PAUSE", 0.01)
    return 64 * 1024


def test_a_large_layer_comes_by_ranges_also_after_its_token_ended(
    registry: Hostile, tmp_path: Path, small: int
) -> None:
    data = registry.add(os.urandom(9 * small + 5))
    registry.push("v1", manifest(layer(data, "m.gguf")))
    registry.wants, registry.cuts = "bearer", [small, 1000]
    secret = tmp_path / "secret"
    secret.write_text("right")

    def ends(request: BaseHTTPRequestHandler) -> bool:
        if (request.headers.get("range") or "").startswith(f"bytes={5 * small}-"):
            registry.token = "N3W"
        return False

    registry.extra = ends
    scratch = fresh(tmp_path)
    assert bytes_of(fetch(registry, scratch, username="ci", password=f"file:{secret}")) == data
    asked = [each for _, path, each, _ in registry.asked if digest(data) in path]
    assert f"bytes={8 * small}-{9 * small - 1}" in asked
    assert asked.count(f"bytes=0-{small - 1}") == 1  # what had come was not asked for again
    assert None not in asked


def test_a_token_that_ends_before_the_download_does(registry: Hostile, tmp_path: Path) -> None:
    data = registry.add(os.urandom(300_000))
    registry.push("v1", manifest(layer(data, "m.gguf")))
    registry.wants, registry.cuts = "bearer", [100_000]
    secret = tmp_path / "secret"
    secret.write_text("right")

    def ends(request: BaseHTTPRequestHandler) -> bool:
        if (request.headers.get("range") or "").startswith("bytes=1000"):
            registry.token = "N3W"
        return False

    registry.extra = ends
    scratch = fresh(tmp_path)
    assert bytes_of(fetch(registry, scratch, username="ci", password=f"file:{secret}")) == data
    starts = [asked for _, path, asked, _ in registry.asked if digest(data) in path and asked]
    assert starts.count("bytes=100000-") == 2


def test_a_download_of_a_killed_process_goes_on(registry: Hostile, tmp_path: Path) -> None:
    data = registry.add(os.urandom(400_000))
    registry.push("v1", manifest(layer(data, "m.gguf")))
    registry.cuts = [200_000, 1, 1, 1]  # every further try of the first process gets one byte
    code = (
        "import sys; from pathlib import Path; from freehold.builtin.source_oci import OCI;"
        "from freehold.settings import Sources; s = OCI(Sources());"
        "s.fetch(s.claims(sys.argv[1]), Path(sys.argv[2]), lambda *a: None)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, f"oci://{registry.host}/m:v1", str(tmp_path)],
        stderr=subprocess.DEVNULL,
    )
    eventually(
        lambda: any(each.stat().st_size >= 200_000 for each in tmp_path.glob("*.part")), "a part"
    )
    child.kill()
    child.wait()
    registry.cuts.clear()
    registry.asked.clear()
    assert bytes_of(fetch(registry, tmp_path)) == data
    assert any((asked or "").startswith("bytes=20000") for _, _, asked, _ in registry.asked)


@pytest.mark.parametrize("part", ["/manifests/", "/blobs/", "/token"])
def test_a_registry_that_stalls(registry: Hostile, tmp_path: Path, part: str) -> None:
    registry.extra = lambda request: bool(part in request.path and time.sleep(2))
    registry.wants = "bearer" if part == "/token" else None
    source = OCI(Sources(timeout=0.2))
    origin = source.claims(f"oci://{registry.host}/m:v1")
    assert origin is not None
    begun = time.monotonic()
    with pytest.raises(Unavailable, match="run the same command again"):
        source.fetch(origin, tmp_path, quiet)
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("wants", ["basic", "bearer"])
def test_passwords_by_reference(registry: Hostile, tmp_path: Path, wants: str) -> None:
    registry.wants = wants
    secret = tmp_path / "secret"
    secret.write_text("right\n")
    with pytest.raises(
        Forbidden, match=r'name one, \[sources.hosts."127.*HOME/freehold.toml, then'
    ):
        fetch(registry, tmp_path)
    fetched = fetch(registry, tmp_path, username="ci", password=f"file:{secret}")
    assert bytes_of(fetched) == MODEL
    secret.write_text("s3cret-but-wrong")
    with pytest.raises(Forbidden, match="check the password") as caught:
        fetch(registry, fresh(tmp_path), username="ci", password=f"file:{secret}")
    assert "s3cret" not in str(caught.value)


def test_no_credential_leaves_for_another_host(registry: Hostile, tmp_path: Path) -> None:
    """A redirect, and a token server elsewhere: neither is told the password."""
    secret = tmp_path / "secret"
    secret.write_text("right")
    host = {"username": "ci", "password": f"file:{secret}"}
    heard: list[str | None] = []
    with hostile() as other:
        other.extra = lambda request: bool(heard.append(request.headers.get("authorization")))
        registry.wants, registry.elsewhere = "basic", f"{other.url}/v2/m/blobs"
        other.add(MODEL)
        with pytest.raises(Unavailable, match="without TLS: refused"):
            fetch(registry, tmp_path, **host)
        registry.elsewhere, registry.wants = None, "bearer"
        registry.realm = f"{other.url}/token"
        with pytest.raises(Forbidden, match="allow it as token_host"):
            fetch(registry, tmp_path, **host)
    assert heard == [None]


def test_a_blob_from_another_host_over_tls(registry: Hostile, tmp_path: Path) -> None:
    """Followed, without the credentials, and with our own certificate authority."""
    import ssl

    import trustme

    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    secret = tmp_path / "secret"
    secret.write_text("right")
    heard: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with hostile() as other, secured(other, context) as url:
        other.extra = lambda request: bool(heard.append(request.headers.get("authorization")))
        other.add(MODEL)
        registry.wants, registry.elsewhere = "basic", f"{url}/v2/m/blobs"
        source = OCI(Sources(
            timeout=2, ca_bundle=str(tmp_path / "ca.pem"),
            hosts={registry.host: Host(username="ci", password=f"file:{secret}")},
        ))  # fmt: skip
        origin = source.claims(f"oci://{registry.host}/m:v1")
        assert origin is not None
        assert bytes_of(source.fetch(origin, tmp_path, quiet)) == MODEL
        assert heard
        assert set(heard) == {None}
        with pytest.raises(Unavailable):  # not trusted without being told to
            fetch(registry, fresh(tmp_path), username="ci", password=f"file:{secret}")


def secured(registry: Hostile, context: object):  # type: ignore[no-untyped-def]
    """Serve the same registry over TLS as well."""
    import threading
    from contextlib import contextmanager
    from http.server import ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            registry.handle(self)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            return

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *arguments: object) -> None:
            return  # of a client that does not trust us

    @contextmanager
    def run() -> Iterator[str]:
        server = Quiet(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.socket = context.wrap_socket(server.socket, server_side=True)  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    return run()


@pytest.mark.parametrize(
    ("url", "says"),
    [("http://example.org/x", "without TLS"), ("https://127.0.0.1/x", "inside our own network"),
     ("https://169.254.169.254/x", "inside our own network"), ("file:///etc/passwd", "without TLS"),
     ("https://[::1]/x", "inside our own network"), ("https://10.1.2.3/x", "own network")],
)  # fmt: skip
def test_redirects_that_are_refused(url: str, says: str) -> None:
    from freehold.models.oci.access import open_access

    with pytest.raises(Unavailable, match=says):
        open_access("registry.example", {}).check_redirect(url)


def test_plain_http_only_to_this_machine_or_where_it_is_allowed() -> None:
    from freehold.models.oci.access import open_access

    assert open_access("127.0.0.1:5000", {}).base == "http://127.0.0.1:5000"
    assert open_access("[::1]:5000", {}).base == "http://[::1]:5000"
    assert open_access("registry.example", {}).base == "https://registry.example"
    allowed = {"registry.example": Host(plain_http=True)}
    assert open_access("registry.example", allowed).base == "http://registry.example"


def test_redirects_in_a_circle_and_servers_of_something_else(tmp_path: Path) -> None:
    with hostile() as made:
        made.extra = lambda request: not reply(request, 302, b"", {"location": request.path})
        with pytest.raises(Unavailable, match="round in circles"):
            fetch(made, tmp_path)
    with serving(lambda request: reply(request, 200, b"<html>hello")) as url:
        other = Hostile(url=url)
        with pytest.raises(Invalid, match="not valid JSON"):
            fetch(other, tmp_path)
    with pytest.raises(Unavailable, match="cannot reach"):
        fetch(Hostile(url="http://127.0.0.1:9"), tmp_path)


def test_what_is_not_there(registry: Hostile, tmp_path: Path) -> None:
    with pytest.raises(Missing, match="has no m:v2"):
        fetch(registry, tmp_path, "m:v2")
    del registry.blobs[digest(MODEL)]
    with pytest.raises(FreeholdError, match="has no sha256:"):
        fetch(registry, tmp_path)


def test_what_oras_and_skopeo_pushed_to_a_real_registry(tmp_path: Path) -> None:
    needs("docker-registry", "skopeo")
    (tmp_path / "m.gguf").write_bytes(MODEL)
    with docker_registry(tmp_path) as host:
        code = (
            "import sys, oras.client; c = oras.client.OrasClient(insecure=True);"
            "c.push(target=sys.argv[1], files=['m.gguf'], disable_path_validation=True)"
        )
        subprocess.run(
            [sys.executable, "-c", code, f"{host}/by/oras:v1"], cwd=tmp_path, check=True,
            capture_output=True, env=clean_environment(),
        )  # fmt: skip
        subprocess.run(
            ["skopeo", "copy", "--src-tls-verify=false", "--dest-tls-verify=false",
             f"docker://{host}/by/oras:v1", f"docker://{host}/by/skopeo:v2"],
            check=True, capture_output=True, env=clean_environment(),
        )  # fmt: skip
        for name in ("by/oras:v1", "by/skopeo:v2"):
            source = OCI(Sources())
            origin = source.claims(f"oci://{host}/{name}")
            assert origin is not None
            scratch = tmp_path / name.replace("/", "-")
            scratch.mkdir()
            found = source.fetch(origin, scratch, quiet).files["model.gguf"]
            assert hashlib.sha256(found.read_bytes()).digest() == hashlib.sha256(MODEL).digest()
